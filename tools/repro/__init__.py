"""Published results of model compression, reproduced on real data by one command each."""
