"""A function for the tests behind Knative's queue-proxy: an event function at /event, any other path an HTTP function. One that is asked to waits until the
file GATE is there."""

import os
import pathlib
import time

import functions_framework

GATE = pathlib.Path(os.environ["GATE"])


def told(request, path, **more):
    return {"path": path, "method": request.method, "host": request.host, "forwarded": request.headers.get("Forwarded"), **more}


@functions_framework.http
def function(request):
    if request.path != "/event":
        return told(request, request.full_path, body=request.get_data(as_text=True))
    event = request.get_json()
    deadline = time.monotonic() + 30
    while "wait" in event["queryParameters"] and not GATE.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return {"statusCode": 201, "headers": {"X-Mine": "1"}, "body": told(request, event["path"], body=event["body"])}
