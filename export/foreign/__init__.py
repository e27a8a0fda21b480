"""Models that were trained and exported elsewhere, made into bundles.

A graph of another exporter is code from elsewhere: it is read within bounds (``source.py``), run in
a process of its own (``worker.py``), rewritten into the form that bundles have (``rewrite.py``) and
compared with plain onnxruntime on the original file before anything is written (``gate.py``).
"""
