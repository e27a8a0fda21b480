"""Several processes behind one port: a parent that holds no model, and workers with their engines.

The parent starts workers and Envoy, hands each worker a socket to Envoy, answers probes and
scrapes for all, and starts again what ends. A call goes from Envoy to a worker and back; the parent
sees none of it.
"""
