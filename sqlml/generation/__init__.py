"""Texts from language models: graphs of ONNX, tokenizers, sampling."""
