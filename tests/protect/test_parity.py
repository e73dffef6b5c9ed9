"""`paper_code` is the published algorithm: whole rounds against it in torch and float64.

The same initial weights, batches and draws. Once ours is handed on at every stage, so that each is
compared for itself; once both run on their own from the first step to the last. (The models and
their training, ResNets too, are compared in the parity tests of `models` and `train`.)
"""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from mmjax.core import keys
from mmjax.core.config import parse
from mmjax.core.config_file import from_file
from mmjax.core.keys import stream
from mmjax.data.scenes import write_scenes
from mmjax.models import layouts, presets
from mmjax.ops import hotflip, pgd
from mmjax.protect import kernels, pipeline, rounds, surrogate
from mmjax.protect.config import ProtectConfig
from mmjax.protect.pairs import cut
from mmjax.protect.pipeline import protect_pairs
from tests.models import tiny
from tests.protect.test_pipeline import state
from tests.train import test_parity as training

pytestmark = pytest.mark.parity
ROUNDS, SEARCHES, STEPS, BATCH = 3, 2, 6, 8
TOLERANCE = 1e-4
"""Of gradients, in float32 against float64."""
PRESET = dataclasses.replace(tiny.VIT, text=dataclasses.replace(tiny.VIT.text, context_length=32))


class Watched:
    """A protection, and all that it computed on the way."""

    def __init__(self, folder, patch):
        self.told: dict[str, list] = {}
        self.calls: list[tuple] = []
        self.trained: list[tuple] = []
        patch.setitem(presets.PRESETS, PRESET.name, PRESET)
        self._watch(patch)
        write_scenes(folder / "scenes", 12, 3, size=PRESET.vision.image_size, captions=2)
        values = from_file("protect/paper_code")
        values["surrogate"]["model"].update(preset=PRESET.name, vocab_size=640)
        # the default's 1e-4 would move weights by no more than what is tolerated
        optimizer = dataclasses.replace(ProtectConfig().surrogate.optimizer, learning_rate=1e-3)
        values["surrogate"].update(steps=STEPS, optimizer=dataclasses.asdict(optimizer))
        values["trigger"]["rounds"] = SEARCHES
        values.update(rounds=ROUNDS, batch_size=BATCH, inputs=(str(folder / "scenes"),))
        values["mesh"] = {"data": 1}
        self.config = parse(ProtectConfig, values)
        protect_pairs(self.config, folder / "out", say=self._begin)
        self.noise, self.triggers = state(folder / "out")

    def tell(self, name, *values):
        def keep(*values):
            self.told.setdefault(name, []).append(tuple(map(np.asarray, values)))

        jax.debug.callback(keep, *values)

    def _begin(self, line):
        """What is computed to measure costs, before the first line, is no part of the rounds."""
        if not self.trained:
            jax.effects_barrier()
            self.told.clear()
            self.calls.clear()

    def _take(self):
        jax.effects_barrier()
        told, self.told = self.told, {}
        return told

    def _watch(self, patch):
        slope, choose, search = hotflip.gradient, hotflip.choose, hotflip.search
        make, train, run_all = (
            surrogate.make_optimizer,
            surrogate.Trainer.train,
            pipeline.run_rounds,
        )

        def telling(name, function):
            def call(*args, **kwargs):
                found = function(*args, **kwargs)
                self.tell(name, *jax.tree.leaves(found))
                return found

            return call

        def descend(loss, noise, low, high, size, *, steps, args):
            @jax.custom_vjp
            def pass_on(value, step):
                return value

            def back(kept, gradient):
                self.tell("steps", *kept, gradient)
                return gradient, np.zeros((), jax.dtypes.float0)

            pass_on.defvjp(lambda value, step: (value, (step, value)), back)

            def watched(value, step, *args):
                return loss(pass_on(value, step), step, *args)

            return pgd.descend(watched, noise, low, high, size, steps=steps, args=args)

        def make_optimizer(*args):
            real = make(*args)

            def update(gradients, held, params):
                self.tell("gradients", held[0].count, *jax.tree.leaves(gradients))
                return real.update(gradients, held, params)

            return optax.GradientTransformation(real.init, update)

        def trained(trainer, number, noise, triggers):
            before = np.array(noise), triggers.copy()
            variables = train(trainer, number, noise, triggers)
            self.trained.append((*before, self._take()["gradients"], variables))
            return variables

        def keeping(name, kernel):
            def call(variables, batch, noise, triggers, *key):
                found = jax.block_until_ready(kernel(variables, batch, noise, triggers, *key))
                self.calls.append((name, np.array(noise), np.array(triggers), found, self._take()))
                return found

            return call

        def run_rounds(pairs, config, run, tokenizer, make_work, say):
            work = make_work()
            named = {name: keeping(name, kernel) for name, kernel in work.kernels._asdict().items()}
            self.work = work._replace(kernels=kernels.Kernels(**named))
            return run_all(pairs, config, run, tokenizer, lambda: self.work, say)

        patch.setattr(hotflip, "gradient", telling("slope", slope))
        patch.setattr(hotflip, "choose", telling("candidates", choose))
        patch.setattr(hotflip, "search", telling("found", search))
        patch.setattr(kernels, "descend", descend)
        patch.setattr(surrogate, "make_optimizer", make_optimizer)
        patch.setattr(surrogate.Trainer, "train", trained)
        patch.setattr(pipeline, "run_rounds", run_rounds)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield Watched(tmp_path_factory.mktemp("parity"), patch)


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small are faster so."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draws(watched):
    """By round: the pairs of every training step; the pairs and orders of every noise batch."""
    config, pairs = watched.config, watched.work.pairs
    trains, epoch = [], 0
    while len(trains) < ROUNDS * STEPS:
        rng = keys.host(config.seed, "training", epoch)
        batches = [each for turn in pairs.turns for each in cut(pairs, turn, BATCH, rng)]
        trains += [batches[place].rows for place in rng.permutation(len(batches))]
        epoch += 1
    for number in range(ROUNDS):
        key = stream(jax.random.key(config.seed), "noise", number)
        changed = []
        for place, (_, batch) in enumerate(rounds._batches(watched.work, number)):
            steps = [
                stream(jax.random.fold_in(jax.random.fold_in(key, place), step), "shuffle")
                for step in range(config.noise.steps)
            ]
            orders = [np.asarray(jax.random.permutation(each, BATCH)) for each in steps]
            changed.append((batch.rows, batch.changing, orders))
        yield trains[number * STEPS : (number + 1) * STEPS], changed


def written(preset, variables):
    """Our variables under open_clip's names."""
    import torch

    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        source = layouts.origin(tuple(key.key for key in path), leaf.shape, "open_clip")
        count = np.arange(leaf.size).reshape(source.shape)
        tensor = np.empty(leaf.size, np.float32)
        tensor[source.read([count]).ravel()] = np.ravel(leaf)
        found[source.names[0]] = torch.from_numpy(tensor.reshape(source.shape))
    return found


def transcription(watched):
    from tests.models.torch_clip import open_clip_model
    from tests.oracles.mem import Mem

    config, work = watched.config, watched.work
    preset = work.towers.preset
    model = open_clip_model(preset)
    model.load_state_dict(written(preset, work.trainer.variables), strict=False)
    noise, triggers, _, _ = watched.trained[0]
    assert not noise.any()
    vocab = preset.text.vocab_size
    rules = SimpleNamespace(epsilon=8, step_size=1, candidates=16, forbidden=(vocab - 2, vocab - 1))
    return Mem(
        model,
        preset.mean,
        preset.std,
        work.pairs.images[work.pairs.owner],
        work.pairs.captions.ids,
        noise,
        triggers,
        optimizer=config.surrogate.optimizer,
        rules=rules,
    )


def apart(found, wanted):
    """The norm of the difference over the norm."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def variables_of(mem, preset, gradients=()):
    """The transcription's state, gradients in the place of parameters if given, as our tree."""
    tensors = mem.model.state_dict().items()
    floats = {name: tensor.numpy() for name, tensor in tensors if tensor.is_floating_point()}
    return training.ours(preset, {**floats, **dict(gradients)})


def test_every_stage_of_every_round(ours):
    """From what ours had: its pairs for training, and its weights for triggers and noise."""
    mem, preset = transcription(ours), ours.work.towers.preset
    calls, moved = iter(ours.calls), ours.work.trainer.variables["params"]
    margins, searched, undetermined = [], 0, []
    for number, (trains, batches) in enumerate(draws(ours)):
        noise, triggers, gradients, variables = ours.trained[number]
        np.testing.assert_array_equal(mem.noise, noise)
        np.testing.assert_array_equal(mem.triggers, triggers)
        gradients = sorted(gradients, key=lambda told: int(told[0]))
        for rows, (_, *found) in zip(trains, gradients, strict=True):
            wanted = variables_of(mem, preset, mem.train(rows).items())["params"]
            assert apart(flat(found), flat(wanted)) <= TOLERANCE
        wanted, found = variables_of(mem, preset), variables
        assert training.furthest(found["params"], wanted["params"]) < 1e-4
        assert training.furthest(found["params"], moved) > 3e-3
        moved = variables["params"]
        own = {name: tensor.clone() for name, tensor in mem.model.state_dict().items()}
        mem.model.load_state_dict(written(preset, variables), strict=False)
        for rows, changing, orders in batches:
            if number < SEARCHES:
                kind, seen, had, found, told = next(calls)
                assert kind == "search"
                np.testing.assert_array_equal(seen, mem.noise[rows])
                np.testing.assert_array_equal(had, mem.triggers[rows])
                wanted = mem.search(rows, changing)
                ((slope,),), ((candidates,),) = told["slope"], told["candidates"]
                assert apart(slope, wanted.slope) <= TOLERANCE
                np.testing.assert_array_equal(candidates, wanted.candidates)
                np.testing.assert_array_equal(found, wanted.triggers)
                assert told["found"][0][1] == pytest.approx(wanted.losses[-1].min(), rel=1e-5)
                best = np.sort(wanted.losses, axis=1)
                margins += list(best[:, 1] - best[:, 0])
                searched += int((wanted.triggers != had).sum())
            kind, seen, had, (found, _), told = next(calls)
            assert kind == "descend"
            np.testing.assert_array_equal(had, mem.triggers[rows])
            noise = mem.noise[rows]
            steps = sorted(told["steps"], key=lambda told: int(told[0]))
            for order, (_, seen, slope) in zip(orders, steps, strict=True):
                np.testing.assert_array_equal(seen, noise)
                wanted = mem.slope(rows, noise, order)
                assert apart(slope, wanted) <= TOLERANCE
                undetermined.append(np.sum(np.sign(slope) != np.sign(wanted)))
                noise = mem.moved(rows, noise, slope)
            np.testing.assert_array_equal(found, noise)
            mem.noise[rows[:changing]] = noise[:changing]
        mem.model.load_state_dict(own)
    assert next(calls, None) is None
    np.testing.assert_array_equal(mem.noise, ours.noise)
    np.testing.assert_array_equal(mem.triggers, ours.triggers)
    assert searched > len(ours.triggers)
    assert min(margins) > 1e-5, "no choice hangs on rounding"
    assert sum(undetermined) <= 1e-5 * ours.noise.size * ROUNDS * ours.config.noise.steps


def test_a_whole_run_of_its_own(ours):
    mem, preset = transcription(ours), ours.work.towers.preset
    ends = [(noise, triggers) for noise, triggers, *_ in ours.trained[1:]]
    ends.append((ours.noise, ours.triggers))
    for number, (trains, batches) in enumerate(draws(ours)):
        for rows in trains:
            mem.train(rows)
        params = ours.trained[number][3]["params"]
        assert training.furthest(params, variables_of(mem, preset)["params"]) < 1e-4
        for rows, changing, orders in batches:
            if number < SEARCHES:
                mem.search(rows, changing)
            mem.descend(rows, changing, orders)
        noise, triggers = ends[number]
        np.testing.assert_array_equal(mem.triggers, triggers)
        assert np.mean(noise != 0) > 0.5
        assert np.mean(mem.noise != noise) <= 1e-3, "signs of gradients that all but vanish"
