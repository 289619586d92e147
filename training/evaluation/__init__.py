"""How good the models are, measured where the truth is known and on real quotes; writes the model cards."""
