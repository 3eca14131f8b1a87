// Seal a message and publish it: node send.mjs BUNDLE TOPIC MESSAGE (needs mqtt, which npm has; the rest is Node's own).
import { createHash, createPrivateKey, createPublicKey, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import mqtt from 'mqtt'

const [bundle, topic, message] = process.argv.slice(2)
const file = name => readFileSync(`${bundle}/${name}`, 'utf8')
const [, host] = file('client.toml').match(/^host = ['"](.*)['"]$/m)
const [, port] = file('client.toml').match(/^port = (\d+)$/m)

const key = createPrivateKey(file('sign.key'))
const { crv, kty, x, y } = createPublicKey(key).export({ format: 'jwk' })
const kid = createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url') // RFC 7638
const alg = { 'P-256': 'ES256', secp256k1: 'ES256K' }[crv]

let last = 0
function seal (topic, msg) {
  last = Math.max(last + 1, Date.now() * 1000) // grows from message to message, and from start to start
  const part = value => Buffer.from(JSON.stringify(value)).toString('base64url')
  const signed = part({ alg, kid, typ: 'pinseal+jwt' }) + '.' + part({ aud: topic, iat: Date.now() / 1000, seq: last, msg })
  return signed + '.' + sign('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')
}

const client = await mqtt.connectAsync(`mqtts://${host}:${port}`, { ca: file('ca.crt'), cert: file('client.crt'), key: file('client.key') })
await client.publishAsync(topic, seal(topic, message), { qos: 1 })
await client.endAsync()
