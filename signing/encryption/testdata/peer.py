"""Another implementation: peer.py private|shared KEY < msg opens an encrypted message; peer.py x25519 FILE < JSON makes one
for the public key in FILE, of header, kid and content; peer.py jwk FILE prints a key."""
import base64, json, os, sys

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

what, argument = sys.argv[1:]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def private_key():
    with open(argument, "rb") as f:
        return load_pem_private_key(f.read(), password=None)


def agreed_secret(epk):
    if epk["kty"] == "OKP":
        return private_key().exchange(X25519PublicKey.from_public_bytes(unb64(epk["x"])))
    numbers = (int.from_bytes(unb64(epk[name]), "big") for name in ("x", "y"))
    public = ec.EllipticCurvePublicNumbers(*numbers, ec.SECP256R1()).public_key()
    return private_key().exchange(ec.ECDH(), public)


def agreed_key(secret):
    alg = b"ECDH-ES+A256KW"
    info = len(alg).to_bytes(4, "big") + alg + bytes(4) + bytes(4) + (256).to_bytes(4, "big")
    return ConcatKDFHash(SHA256(), 32, info).derive(secret)


if what == "jwk":
    key = private_key()
    point, d = key.public_key().public_numbers(), key.private_numbers().private_value
    coordinates = {name: b64(n.to_bytes(32, "big")) for name, n in (("x", point.x), ("y", point.y), ("d", d))}
    print(json.dumps({"kty": "EC", "crv": "P-256", **coordinates}))
elif what == "x25519":
    order = json.load(sys.stdin)
    with open(argument, "rb") as f:
        recipient = load_pem_public_key(f.read())
    ephemeral, content_key, iv = X25519PrivateKey.generate(), os.urandom(32), os.urandom(12)
    protected = b64(json.dumps(order["header"]).encode())
    sealed = AESGCM(content_key).encrypt(iv, order["content"].encode(), protected.encode())
    epk = {"kty": "OKP", "crv": "X25519", "x": b64(ephemeral.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))}
    wrapped = aes_key_wrap(agreed_key(ephemeral.exchange(recipient)), content_key)
    print(json.dumps({
        "protected": protected, "header": {"alg": "ECDH-ES+A256KW", "kid": order["kid"], "epk": epk},
        "encrypted_key": b64(wrapped), "iv": b64(iv), "ciphertext": b64(sealed[:-16]), "tag": b64(sealed[-16:]),
    }))
else:
    msg = json.load(sys.stdin)
    wrapping = unb64(json.loads(argument)["k"]) if what == "shared" else agreed_key(agreed_secret(msg["header"]["epk"]))
    key = aes_key_unwrap(wrapping, unb64(msg["encrypted_key"]))
    sealed = unb64(msg["ciphertext"]) + unb64(msg["tag"])
    content = AESGCM(key).decrypt(unb64(msg["iv"]), sealed, msg["protected"].encode())
    print(json.dumps({"header": json.loads(unb64(msg["protected"])), "content": content.decode()}))
