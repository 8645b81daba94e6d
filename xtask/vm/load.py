"""Sends requests one after the other, from several threads, until a file appears: some on new connections, some on one that
stays open. Prints how many got status 200, and every other result."""
import collections
import http.client
import os
import ssl
import sys
import threading
import time

host, threads, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
headers = {"Authorization": "Bearer " + os.environ["VM_API_KEY"]}
context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
counts = collections.Counter()
longest = 0.0


def work(number):
    global longest
    connection = None
    n = 0
    while not os.path.exists(stop):
        n += 1
        started = time.monotonic()
        try:
            if connection is None:
                connection = http.client.HTTPSConnection(host, timeout=60, context=context)
            connection.request("GET", f"/load/{number}/{n}", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            end = "200" if answer.status == 200 else f"{answer.status} {body[:200]!r}"
            if number % 2 or answer.will_close:
                connection.close()
                connection = None
        except Exception as error:
            end = f"{type(error).__name__}: {error}, after {time.monotonic() - started:.0f} s"
            connection = None
        counts[end] += 1
        # Without a pause, an emulated machine has no time for other work.
        time.sleep(0.02)
        longest = max(longest, time.monotonic() - started)


workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
answered = counts.pop("200", 0)
print(f"answered={answered} lost={sum(counts.values())} longest={longest:.1f}s")
for end, count in counts.items():
    print(f"{count} x {end}")
sys.exit(1 if counts or not answered else 0)
