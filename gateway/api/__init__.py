"""The HTTP edge: routes, request bodies, the published OpenAPI document, the server."""
