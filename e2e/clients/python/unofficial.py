"""Runs the calls of a JSON file (standard input) with aliyun-api-gateway-python and prints what came back."""

import base64
import json
import urllib.parse

from loopback import job

from aliyun_api_gateway import ApiGatewayClient


def call(client, c):
    options = {"headers": c.get("headers") or {}, "query": [tuple(p) for p in c.get("query") or []]}
    if "form" in c:
        options["form"] = [tuple(p) for p in c["form"]]
    elif "json" in c:
        options["json_body"] = c["json"]
    elif "bytes" in c:
        options.update(body=base64.b64decode(c["bytes"]), content_type="application/octet-stream")
    answer = client.request(c["method"], urllib.parse.quote(c["path"]), **options)
    return {"name": c["name"], "status": answer.status, "body": answer.text(),
            "headers": {n.lower(): v for n, v in answer.headers}}


found = job()
client = ApiGatewayClient(found["base"], found["key"], found["secret"])
print(json.dumps([call(client, c) for c in found["calls"]]))
