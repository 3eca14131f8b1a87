"""Publish in the legacy format: python3 legacy_send.py KEY BUNDLE TOPIC TEXT (needs paho-mqtt and ecdsa)."""
import base64, sys, time, tomllib
import ecdsa, paho.mqtt.publish

key_file, bundle, topic, text = sys.argv[1:]
key = ecdsa.SigningKey.from_pem(open(key_file).read())
message = str(int(time.time())) + text
message += ":" + base64.b64encode(key.sign(message.encode())).decode()  # SHA-1, unless told otherwise

node = tomllib.load(open(bundle + "/client.toml", "rb"))
tls = {"ca_certs": bundle + "/ca.crt", "certfile": bundle + "/client.crt", "keyfile": bundle + "/client.key"}
paho.mqtt.publish.single(topic, message, qos=1, hostname=node["host"], port=node["port"], tls=tls)
