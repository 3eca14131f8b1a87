"""Seal a message and publish it: python3 send.py BUNDLE TOPIC MESSAGE (needs paho-mqtt and PyJWT with cryptography)."""
import base64, hashlib, json, sys, time, tomllib
import jwt, paho.mqtt.publish
from cryptography.hazmat.primitives.serialization import load_pem_private_key

bundle, topic, message = sys.argv[1:]
node = tomllib.load(open(bundle + "/client.toml", "rb"))
key = load_pem_private_key(open(bundle + "/sign.key", "rb").read(), password=None)

b64 = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
crv, alg = {"secp256r1": ("P-256", "ES256"), "secp256k1": ("secp256k1", "ES256K")}[key.curve.name]
x, y = (b64(n.to_bytes(32, "big")) for n in (key.public_key().public_numbers().x, key.public_key().public_numbers().y))
jwk = json.dumps({"crv": crv, "kty": "EC", "x": x, "y": y}, separators=(",", ":"))
kid = b64(hashlib.sha256(jwk.encode()).digest())  # RFC 7638
now = time.time_ns() // 1000  # microseconds: the sequence number must grow from message to message
claims = {"aud": topic, "iat": now / 1_000_000, "seq": now, "msg": message}
sealed = jwt.encode(claims, key, algorithm=alg, headers={"typ": "pinseal+jwt", "kid": kid})
tls = {"ca_certs": bundle + "/ca.crt", "certfile": bundle + "/client.crt", "keyfile": bundle + "/client.key"}
paho.mqtt.publish.single(topic, sealed, qos=1, hostname=node["host"], port=node["port"], tls=tls)
