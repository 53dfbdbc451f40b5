# The app of the end-to-end tests as an ASGI app, for Hypercorn and uvicorn.
import hashlib
import json

asked = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin1").title(), []).append(value.decode("latin1"))
    subject = ",".join(headers.get("X-Auth-Subject", []))
    path = scope["path"]

    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello " + subject})
        while (event := await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": event["text"]})
        return

    async def start(kind):
        head = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": head})

    if path == "/asked":
        await start(b"text/plain")
        await send({"type": "http.response.body", "body": "\n".join(asked).encode()})
        return
    asked.append(path + " " + subject)
    if path == "/stream":
        await start(b"text/event-stream")
        await send({"type": "http.response.body", "body": b"data: hello %b\n\n" % subject.encode(), "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    digest, more = hashlib.sha256(), True
    while more:
        event = await receive()
        digest.update(event.get("body", b""))
        more = event.get("more_body", False)
    await start(b"application/json")
    body = {"Path": path, "Header": headers, "Sum": digest.hexdigest()}
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
