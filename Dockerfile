# The relay with its tools. State (key, peers) lives in /data: mount a volume there, or give the secrets as
# environment variables. Needs CAP_NET_ADMIN and /dev/net/tun for the tun exit; without them it uses userspace.
FROM node:22-bookworm-slim
RUN apt-get update \
  && apt-get install -y --no-install-recommends iproute2 nftables ca-certificates \
  && rm -rf /var/lib/apt/lists/* \
  && npm install --global deno@2.9.6
WORKDIR /oxrelay
COPY . .
RUN deno install --frozen && deno cache --frozen main.ts src/cli/*.ts src/serve/*.ts src/connect/mod.ts
ENV DENO_NO_UPDATE_CHECK=1
ENV OXRELAY_STATE_DIR=/data
EXPOSE 4433/udp 9090/tcp
CMD ["deno", "task", "serve"]
