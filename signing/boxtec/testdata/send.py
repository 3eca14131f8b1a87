"""A legacy sender as it stands in the field: send.py KEY TEXT [sha256]."""
import base64, hashlib, sys, time

from ecdsa import SigningKey

key = SigningKey.from_pem(open(sys.argv[1]).read())
message = str(int(time.time())) + sys.argv[2]
if sys.argv[3:] == ["sha256"]:
    signature = key.sign(message.encode(), hashfunc=hashlib.sha256)
else:
    signature = key.sign(message.encode())
print(message + ":" + base64.b64encode(signature).decode())
