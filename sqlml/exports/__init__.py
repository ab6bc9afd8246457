"""Models as files, and files as models: bundles, ONNX, the libraries' own formats, SQL."""
