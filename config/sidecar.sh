#!/bin/sh
# A node beside an existing Prometheus, as a part of a cluster: what `thanos sidecar` does. See docs/sidecar.md.
#
# The Prometheus needs external labels of its own in its configuration, e.g.
#   global: {external_labels: {cluster: eu, replica: a}}
# and must leave its blocks alone until they are uploaded:
#   --storage.tsdb.min-block-duration=2h --storage.tsdb.max-block-duration=2h
#
# The node scrapes nothing and takes no writes of its own with --roles=store,query; leave that out for all roles.
exec koios \
  --prometheus.url=http://localhost:9090 \
  --prometheus.data-dir=/var/lib/prometheus/metrics2 \
  --objstore.config-file=/etc/koios/bucket.yml \
  --join=koios.example \
  --roles=store,query \
  --web.listen-address=:9091 \
  --storage.path=/var/lib/koios
