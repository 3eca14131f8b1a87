#!/usr/bin/env python3
"""Switch an LED by signed MQTT messages: the scheme that pinseal replaces.

A message is the time as ten digits, a command (0 or 1), a colon and the
base64 of a secp256k1 signature with SHA-1, python-ecdsa's default.

Usage: agent.py PORT CA CERT KEY PUBLIC_KEY LINE COUNTER

LINE is the file that stands for the GPIO line; it holds 0 or 1. COUNTER is
eight bytes in which the benchmark reads how many commands were acted on.
"""

import base64
import mmap
import os
import struct
import sys
import time

import paho.mqtt.client as mqtt
from ecdsa import BadSignatureError, VerifyingKey

port, ca, cert, key, public_key, line_path, counter_path = sys.argv[1:]

with open(public_key) as f:
    verifying_key = VerifyingKey.from_pem(f.read())

line = os.open(line_path, os.O_WRONLY)
os.pwrite(line, b"0", 0)

with open(counter_path, "r+b") as f:
    counter = mmap.mmap(f.fileno(), 8)
acted = 0


def on_connect(client, userdata, flags, rc):
    client.subscribe("ledStatus", qos=1)


def on_message(client, userdata, msg):
    global acted
    signed, _, signature = msg.payload.rpartition(b":")
    try:
        verifying_key.verify(base64.b64decode(signature), signed)
    except (BadSignatureError, ValueError):
        print("bad signature", file=sys.stderr)
        return
    if abs(time.time() - int(signed[:10])) > 30:
        print("too old", file=sys.stderr)
        return
    command = signed[10:]
    if command not in (b"0", b"1"):
        print("unknown command", file=sys.stderr)
        return
    os.pwrite(line, command, 0)
    acted += 1
    struct.pack_into("<Q", counter, 0, acted)


client = mqtt.Client()
client.on_connect = on_connect
client.on_message = on_message
client.tls_set(ca_certs=ca, certfile=cert, keyfile=key)
client.connect("127.0.0.1", int(port))
client.loop_forever()
