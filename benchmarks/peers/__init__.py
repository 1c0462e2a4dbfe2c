"""One file per peer: ``prepare(net, threads)`` yields its variants as `Prepared`; the fastest competes."""
