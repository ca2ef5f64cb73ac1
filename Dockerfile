# egressproxy as a container. Transparent planes need NET_ADMIN and the host's network:
#   docker run --network host --cap-add NET_ADMIN -v ./policies:/etc/egressproxy:ro egressproxy \
#     run --policy /etc/egressproxy/lab.yaml --redirect 0.0.0.0:15001
# The explicit plane alone needs neither:
#   docker run -p 3128:3128 … --entrypoint python3 egressproxy -m egressproxy run --explicit 0.0.0.0:3128 …
FROM python:3.13-slim AS build

# The compiler makes the flow path native (setup.py); it stays in this stage.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
COPY locks/run.lock /src/locks/run.lock
# --copies: the capability below belongs to our interpreter, not to the image's.
RUN python3 -m venv --copies /opt/egressproxy \
 && /opt/egressproxy/bin/pip install --no-cache-dir --require-hashes -r /src/locks/run.lock
COPY pyproject.toml setup.py README.md LICENSE /src/
COPY egressproxy /src/egressproxy
RUN /opt/egressproxy/bin/pip install --no-cache-dir --no-deps /src

FROM python:3.13-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends libcap2-bin nftables \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin egressproxy \
 && install -d -o egressproxy -g egressproxy /var/log/egressproxy
COPY --from=build /opt/egressproxy /opt/egressproxy
COPY policies /usr/share/egressproxy/policies
# NET_ADMIN: IP_TRANSPARENT and SO_MARK; NET_BIND_SERVICE: ports below 1024. A container that is not
# given NET_ADMIN cannot start this interpreter (EPERM at exec): use the image's python3, as above.
RUN setcap cap_net_admin,cap_net_bind_service+ep /opt/egressproxy/bin/python3

ENV PATH=/opt/egressproxy/bin:$PATH \
    PYTHONPATH=/opt/egressproxy/lib/python3.13/site-packages \
    PYTHONUNBUFFERED=1
USER egressproxy
EXPOSE 3128
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
  CMD ["/usr/local/bin/python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9090/healthz', timeout=2)"]
ENTRYPOINT ["/opt/egressproxy/bin/python3", "-m", "egressproxy"]
CMD ["run", "--policy", "/usr/share/egressproxy/policies/aks-global.yaml", "--explicit", "0.0.0.0:3128"]
