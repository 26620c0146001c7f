"""The same training as users of other libraries write it: what `throughput.py` and `gpu.py` compare bsgap with.

A loop is made for a case (what, batch size, runs), with `what` one of 'update', 'evaluation' and 'product', and is then
called with a number of repetitions; it returns the seconds that they took. All train the main study's MLP
(784-1024-1024-10, float32, SGD, learning rate 0.01) on MNIST, on a GPU if there is one; the runs of a cohort go one
after the other, as in a loop over seeds.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Task = Callable[[int], float]
Loop = Callable[[str, int, int], Task]

MEAN, STD, RATE = 0.1307, 0.3081, 0.01


def mnist() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images uint8 [N, 784] and labels int64 [N] of each split."""
    from bsgap import config, data

    study = config.resolve(config.default())
    (dataset,) = data.load(study.data, [study.recipes[0].training_set]).values()
    return {
        name: (split.examples_N.reshape(len(split.labels_N), -1), split.labels_N.astype(np.int64))
        for name, split in dataset.splits.items()
    }


def network() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))


def torch_tensors(what: str, batch_size: int, runs: int, way: str = 'eager') -> Task:
    """PyTorch by a careful user: tensors in memory, no data loader, a multi-tensor optimizer step.

    `way` 'compile' has `torch.compile` make the update and the evaluation, 'graph' replays the update as a CUDA graph.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.backends.cuda.matmul.allow_tf32 = False
    if (
        way == 'compile'
    ):  # else what was compiled for the case before counts towards the limit, beyond which it is eager
        torch.compiler.reset()
        torch._dynamo.config.recompile_limit = 8 + 2 * runs

    def timed(work: Callable[[], Any]) -> float:
        if device == 'cuda':
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if device == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - began

    if what == 'product':
        x = torch.randn(2048, 2048, device=device)
        return lambda repetitions: timed(lambda: [x @ x for _ in range(repetitions)])

    splits = {
        name: (((torch.tensor(images).float() / 255 - MEAN) / STD).to(device), torch.tensor(labels).to(device))
        for name, (images, labels) in mnist().items()
    }
    models = [network().to(device) for _ in range(runs)]
    if what == 'evaluation':

        def part(model: Any, x: Any, y: Any) -> tuple[Any, Any]:
            logits = model(x)
            return F.cross_entropy(logits, y, reduction='sum'), (logits.argmax(1) == y).sum()

        of_part = torch.compile(part) if way == 'compile' else part

        @torch.no_grad()
        def evaluate() -> None:
            for model in models:
                for images, labels in splits.values():
                    loss = correct = torch.zeros((), device=device)
                    for x, y in zip(images.split(2000), labels.split(2000), strict=True):
                        its_loss, its_correct = of_part(model, x, y)
                        loss, correct = loss + its_loss, correct + its_correct
                    (loss / len(labels)).item(), (correct / len(labels)).item()

        return lambda repetitions: timed(lambda: [evaluate() for _ in range(repetitions)])

    images, labels = splits['train']

    def updater(model: Any) -> Callable[[Any], None]:
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, foreach=True)

        def update(index: Any) -> None:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(images[index]), labels[index]).backward()
            optimizer.step()

        if way == 'compile':
            return torch.compile(update)
        if way == 'graph':
            static = torch.arange(batch_size, device=device)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    update(static)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                update(static)

            def replay(index: Any) -> None:
                static.copy_(index)
                graph.replay()

            return replay
        return update

    updates = [updater(model) for model in models]

    def train(repetitions: int) -> None:
        for update in updates:
            order = torch.randperm(len(labels), device=device)
            for i in range(repetitions):
                start = i * batch_size % (len(labels) - batch_size + 1)
                update(order[start : start + batch_size])

    return lambda repetitions: timed(lambda: train(repetitions))


def torch_compile(what: str, batch_size: int, runs: int) -> Task:
    return torch_tensors(what, batch_size, runs, 'compile')


def torch_graph(what: str, batch_size: int, runs: int) -> Task:
    return torch_tensors(what, batch_size, runs, 'graph')


def _loader(batch_size: int) -> Any:
    """PyTorch's `DataLoader` over a dataset that normalises one picture at a time, as torchvision's transforms do."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    images, labels = (torch.tensor(array) for array in mnist()['train'])

    class Pictures(Dataset):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return (images[i].float() / 255 - MEAN) / STD, int(labels[i])

    return DataLoader(Pictures(), batch_size, shuffle=True)


def torch_dataloader(what: str, batch_size: int, runs: int) -> Task:
    """PyTorch by the tutorials, and as the source of the main study has it: a data loader, the default optimizer."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    assert what == 'update'
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.backends.cuda.matmul.allow_tf32 = False
    loader = _loader(batch_size)
    models = [network().to(device) for _ in range(runs)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=RATE) for model in models]

    def batches() -> Any:
        while True:
            yield from loader

    def train(repetitions: int) -> float:
        began = time.perf_counter()
        for model, optimizer in zip(models, optimizers, strict=True):
            total = 0.0
            for _, (x, y) in zip(range(repetitions), batches(), strict=False):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x.to(device)), y.to(device))
                loss.backward()
                optimizer.step()
                total += loss.item()
        return time.perf_counter() - began

    return train


def lightning(what: str, batch_size: int, runs: int) -> Task:
    """Lightning's `Trainer` over the same data loader, its logger, progress bar and checkpoints turned off."""
    import logging
    import warnings

    import lightning as pl
    import torch
    import torch.nn.functional as F  # noqa: N812

    assert what == 'update'
    warnings.simplefilter('ignore')
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    loader = _loader(batch_size)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Any) -> Any:
            x, y = batch
            return F.cross_entropy(self.network(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    class Clock(pl.Callback):
        seconds = 0.0

        def on_train_start(self, *_: Any) -> None:
            self.began = time.perf_counter()

        def on_train_end(self, *_: Any) -> None:
            self.seconds += time.perf_counter() - self.began

    def train(repetitions: int) -> float:
        clock = Clock()
        off: Any = {
            'logger': False,
            'enable_progress_bar': False,
            'enable_checkpointing': False,
            'enable_model_summary': False,
        }
        for _ in range(runs):
            trainer = pl.Trainer(max_steps=repetitions, callbacks=[clock], **off)
            trainer.fit(Module(), loader)
        return clock.seconds

    return train


def keras(what: str, batch_size: int, runs: int) -> Task:
    """Keras 3 on JAX: `compile` and `fit` on arrays in memory."""
    os.environ['KERAS_BACKEND'] = 'jax'
    import keras

    assert what == 'update'
    images, labels = mnist()['train']
    x = ((images.astype(np.float32) / 255) - MEAN) / STD
    models = []
    for _ in range(runs):
        layers = [keras.layers.Dense(n, 'relu') for n in (1024, 1024)]
        models.append(keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10)]))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        models[-1].compile(keras.optimizers.SGD(RATE), loss)

    def train(repetitions: int) -> float:
        began = time.perf_counter()
        for model in models:
            left = repetitions
            while left:
                now = min(left, len(x) // batch_size)
                model.fit(x[: now * batch_size], labels[: now * batch_size], batch_size, epochs=1, verbose=0)
                left -= now
        return time.perf_counter() - began

    return train


LOOPS: dict[str, Loop] = {
    'PyTorch': torch_tensors,
    'torch.compile': torch_compile,
    'CUDA graph': torch_graph,
    'DataLoader': torch_dataloader,
    'Lightning': lightning,
    'Keras': keras,
}
