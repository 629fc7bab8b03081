"""LeNets of Han et al., "Deep Compression", 2015, as LeCun et al. 1998 and Caffe have them; a small CNN."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["lenet_5", "lenet_300_100", "n_parameters", "small_cnn", "small_lenet"]


def lenet_300_100() -> nn.Sequential:
    """784–300–100–10, 266,610 parameters."""
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(784, 300),
            relu1=nn.ReLU(),
            fc2=nn.Linear(300, 100),
            relu2=nn.ReLU(),
            fc3=nn.Linear(100, 10),
        )
    )


def lenet_5() -> nn.Sequential:
    """Caffe's LeNet: two convolutions of 5 × 5, 20 and 50 channels, 500 units; 431,080 parameters."""
    return _lenet(20, 50, 500)


def small_lenet() -> nn.Sequential:
    """LeNet-5 with 8 and 20 channels and 110 units: 40,648 parameters."""
    return _lenet(8, 20, 110)


def small_cnn() -> nn.Sequential:
    """Two convolutions of 3 × 3, 16 and 32 channels, 128 units; 108,618 parameters."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, 3),
            pool1=nn.MaxPool2d(2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3),
            pool2=nn.MaxPool2d(2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(800, 128),
            relu3=nn.ReLU(),
            fc2=nn.Linear(128, 10),
        )
    )


def n_parameters(model: nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def _lenet(n_first: int, n_second: int, n_units: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, n_first, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(n_first, n_second, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * n_second, n_units),
            relu1=nn.ReLU(),
            fc2=nn.Linear(n_units, 10),
        )
    )
