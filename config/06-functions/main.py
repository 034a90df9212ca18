"""Two functions for functions-framework: `hello` gets HTTP requests, `forecast` gets the cloud product's events."""

import base64
import json

import functions_framework


@functions_framework.http
def hello(request):
    """An HTTP function: what it returns is the answer."""
    return {"hello": "FunctionCompute", "method": request.method, "path": request.path}


@functions_framework.http
def forecast(request):
    """An event function: takes an event, returns what the answer is to be."""
    event = request.get_json()
    if event["queryParameters"].get("answer") == "nonsense":
        return "nonsense"
    body = event["body"]
    if event["isBase64Encoded"] in (True, "true"):
        body = base64.b64decode(body).decode()
    answer = {"city": event["pathParameters"].get("city"), "days": event["queryParameters"].get("days"), "method": event["httpMethod"], "body": body}
    return {
        "isBase64Encoded": False,
        "statusCode": 200,
        "headers": {"Content-Type": "application/json"},
        "body": json.dumps(answer),
    }
