"""Ends well if the gemproxy of this container is healthy, as its environment says where it is."""

import http.client
import os
import sys


def main() -> None:
    ports = [os.environ.get("PORT") or "3000", os.environ.get("STREAM_PORT") or "3002"]
    port = next(port for port in ports if port.strip().lower() != "off")
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=4)
    connection.request("GET", "/health")
    response = connection.getresponse()
    print(response.status, response.read().decode())
    sys.exit(response.status != 200)


if __name__ == "__main__":
    main()
