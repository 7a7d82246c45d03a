# The relay with its tools, made from this tree. State (key, peers) lies in /data: mount a volume there, or give the secrets as
# environment variables. Needs CAP_NET_ADMIN and /dev/net/tun for the tun exit; without them it uses userspace.
ARG NODE_IMAGE=docker.io/library/node:22-bookworm-slim
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${NODE_IMAGE} AS build
RUN npm install --global deno@2.9.6
WORKDIR /source
COPY . .
RUN deno task package --only tree --machine "$(dpkg --print-architecture)" --out /tmp/out && mv /tmp/out/oxrelay-* /oxrelay

FROM ${DEBIAN_IMAGE}
RUN apt-get update \
  && apt-get install -y --no-install-recommends iproute2 nftables \
  && rm -rf /var/lib/apt/lists/*
COPY --from=build /oxrelay /usr/lib/oxrelay
RUN ln -s ../lib/oxrelay/bin/oxrelay /usr/bin/oxrelay
ENV OXRELAY_STATE_DIR=/data
VOLUME /data
EXPOSE 4433/udp
STOPSIGNAL SIGTERM
ENTRYPOINT ["oxrelay"]
CMD ["serve"]
