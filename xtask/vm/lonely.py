"""Tries to bypass the daemon repeatedly until a file appears: connects directly to a plain port of the service."""
import os
import socket
import sys
import time

address, stop = sys.argv[1:3]
tries = 0
while not os.path.exists(stop):
    tries += 1
    for family, target in ((socket.AF_INET, (address, 80)), (socket.AF_INET, (address, 22))):
        try:
            with socket.socket(family) as s:
                s.settimeout(0.05)
                s.connect(target)
                s.sendall(b"GET / HTTP/1.0\r\n\r\n")
                s.recv(100)
        except OSError:
            pass
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"x", (address, 9))
    except OSError:
        pass
    time.sleep(0.002)
print(f"tries={tries}")
