"""A peer made of other people's libraries, for the interoperability tests.

peer.py jwk KEY                   the private JWK of a PEM key
peer.py thumbprint KEY            its RFC 7638 thumbprint
peer.py seal KEY KID CLAIMS       PyJWT seals the claims (JSON)
peer.py verify PUBLIC TOPIC       PyJWT verifies standard input, prints the claims
peer.py deterministic KEY DIGEST  python-ecdsa signs a digest (hex), RFC 6979
"""
import base64, hashlib, json, sys

import ecdsa, jwt
from cryptography.hazmat.primitives import serialization


def read(name):
    with open(name, "rb") as f:
        return f.read()


def b64(number):
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


def private(name):
    return serialization.load_pem_private_key(read(name), None)


def jwk(key, with_private):
    numbers = key.private_numbers()
    public = numbers.public_numbers
    curve = {"secp256r1": "P-256", "secp256k1": "secp256k1"}[public.curve.name]
    out = {"crv": curve, "kty": "EC", "x": b64(public.x), "y": b64(public.y)}
    if with_private:
        out["d"] = b64(numbers.private_value)
    return out


def algorithm(key):
    return {"secp256r1": "ES256", "secp256k1": "ES256K"}[key.curve.name]


command, name, *rest = sys.argv[1:]
if command == "jwk":
    print(json.dumps(jwk(private(name), True)))
elif command == "thumbprint":
    canonical = json.dumps(jwk(private(name), False), sort_keys=True, separators=(",", ":"))
    print(base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode())
elif command == "seal":
    key = private(name)
    headers = {"kid": rest[0], "typ": "pinseal+jwt"}
    print(jwt.encode(json.loads(rest[1]), key, algorithm(key), headers), end="")
elif command == "verify":
    key = serialization.load_pem_public_key(read(name))
    print(json.dumps(jwt.decode(sys.stdin.read(), key, [algorithm(key)], audience=rest[0])))
elif command == "deterministic":
    key = ecdsa.SigningKey.from_pem(read(name).decode())
    print(key.sign_digest_deterministic(bytes.fromhex(rest[0]), hashlib.sha256).hex())
else:
    sys.exit("no such command")
