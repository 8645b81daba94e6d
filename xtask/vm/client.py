"""Python's own HTTPS client."""
import os
import sys
import urllib.request

request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + os.environ["VM_API_KEY"]})
with urllib.request.urlopen(request, timeout=60) as answer:
    print(answer.status, answer.read().decode())
