"""A client of PostgreSQL's protocol that logs in, asks one question and then does nothing."""

import base64
import hashlib
import hmac
import secrets
import socket
import struct


def idle(port, login):
    """Logged in by SCRAM-SHA-256; the socket is the caller's to close."""
    client = socket.create_connection(("127.0.0.1", port))
    parameters = "".join(f"{name}\0{login[name]}\0" for name in ("user", "database")) + "\0"
    body = struct.pack("!i", 196608) + parameters.encode()
    client.sendall(struct.pack("!i", len(body) + 4) + body)
    prove(client, login["password"])
    until_ready(client)
    send(client, b"Q", b"SELECT 1\0")
    until_ready(client)
    return client


def prove(client, password):
    receive(client)
    first = f"n=,r={secrets.token_hex(12)}"
    send(client, b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first) + 3) + b"n,," + first.encode())
    challenge = receive(client)[1][4:].decode()
    nonce, salt, rounds = (part[2:] for part in challenge.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    mac = lambda key, what: hmac.new(key, what, "sha256").digest()
    key = mac(salted, b"Client Key")
    final = f"c=biws,r={nonce}"
    signature = mac(hashlib.sha256(key).digest(), f"{first},{challenge},{final}".encode())
    proof = bytes(a ^ b for a, b in zip(key, signature))
    send(client, b"p", f"{final},p={base64.b64encode(proof).decode()}".encode())


def send(client, tag, body):
    client.sendall(tag + struct.pack("!i", len(body) + 4) + body)


def receive(client):
    header = client.recv(5, socket.MSG_WAITALL)
    if header[:1] in (b"E", b""):
        raise SystemExit(f"an idle client was refused: {client.recv(1000)}")
    return header[:1], client.recv(struct.unpack("!i", header[1:])[0] - 4, socket.MSG_WAITALL)


def until_ready(client):
    while receive(client)[0] != b"Z":
        pass
