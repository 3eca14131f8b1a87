"""Seal a command, publish it and verify the node's verdict: python3 command.py BUNDLE TOPIC MESSAGE (needs paho-mqtt and PyJWT)."""
import base64, hashlib, json, queue, sys, time, tomllib
import jwt, paho.mqtt.client
from cryptography.hazmat.primitives.serialization import load_pem_private_key

bundle, topic, message = sys.argv[1:]
config = tomllib.load(open(bundle + "/client.toml", "rb"))
key = load_pem_private_key(open(bundle + "/sign.key", "rb").read(), password=None)
node_key = open(f"{bundle}/signers/{config['node']}.pem").read()
verdicts = f"pinseal/{config['node']}/verdict/{config['name']}"

def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

def kid(public):  # RFC 7638; P-256, which init and device add make
    x, y = (b64(n.to_bytes(32, "big")) for n in (public.x, public.y))
    return b64(hashlib.sha256(json.dumps({"crv": "P-256", "kty": "EC", "x": x, "y": y}, separators=(",", ":")).encode()).digest())

def seal(seq):
    claims = {"aud": topic, "iat": seq / 1_000_000, "seq": seq, "msg": message}
    return jwt.encode(claims, key, algorithm="ES256", headers={"typ": "pinseal+jwt", "kid": kid(key.public_key().public_numbers())})

heard = queue.Queue()
api = getattr(paho.mqtt.client, "CallbackAPIVersion", None)  # paho-mqtt 2 wants to be told
client = paho.mqtt.client.Client(api.VERSION2) if api else paho.mqtt.client.Client()
client.tls_set(bundle + "/ca.crt", bundle + "/client.crt", bundle + "/client.key")
client.on_subscribe = lambda *_: heard.put(None)
client.on_message = lambda _client, _data, m: heard.put(m)
client.connect(config["host"], config["port"])
client.loop_start()
client.subscribe(verdicts, qos=1)
heard.get(timeout=10)  # subscribed, so that no verdict is missed
seq = time.time_ns() // 1000
client.publish(topic, seal(seq), qos=1)
while True:
    arrived = heard.get(timeout=10)
    # The signature, the algorithm and the topic count; the library is told which. Its own time is cut to seconds: leeway.
    verdict = jwt.decode(arrived.payload, node_key, algorithms=["ES256"], audience=verdicts, leeway=5)["msg"]
    if verdict["seq"] == seq:
        break
client.disconnect()
print(verdict["reason"], verdict["state"] or verdict["detail"])
sys.exit(verdict["reason"] != "applied")
