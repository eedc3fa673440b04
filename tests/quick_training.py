"""Words of the command line for a training run of about a second."""

QUICK = ["--set", "model.width=4", "--epochs", "0.5", "--precision", "fp32", "--threads", "1"]
