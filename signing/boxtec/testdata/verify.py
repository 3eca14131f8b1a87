"""A legacy receiver: verify.py PUBLIC reads one message and prints its text."""
import base64, sys

from ecdsa import VerifyingKey

key = VerifyingKey.from_pem(open(sys.argv[1]).read())
message, signature = sys.stdin.read().rsplit(":", 1)
key.verify(base64.b64decode(signature), message.encode())
print(message[10:], end="")
