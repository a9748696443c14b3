"""Event-gated local plasticity as a credit rule for any module: it fills `.grad`, and an optimizer steps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import Tensor, nn

from plastic_cli import UserError
from plastic_cli.credit.gradient import Rest, attached, rest_credit
from plastic_cli.credit.nested import mapped
from plastic_cli.credit.parameters import accumulate, named_parameters, others, taught, unwrapped
from plastic_cli.credit.passes import BeforePass
from plastic_cli.credit.products import Product
from plastic_cli.credit.protocol import Credit, Loss, call, checked_losses
from plastic_cli.credit.recording import Recording, Use
from plastic_cli.errors import did_you_mean
from plastic_eglp import rule
from plastic_eglp.change import (
    BCM_RATE,
    LOCAL_LOSSES,
    LOCAL_RULES,
    Feedback,
    LocalLoss,
    LocalRule,
    add_change,
    factors_of,
    softhebb_step,
)
from plastic_eglp.events import Controller, ThresholdController, make_controller
from plastic_eglp.local_losses import HEAD_RATE, SIMILARITY_WEIGHT, LocalLosses, Targets
from plastic_eglp.samples import Derivatives, Samples, first_loss_derivatives
from plastic_eglp.signals import Novelty, Signal, labels_of, margin, uncertainty
from plastic_eglp.stimuli import Stimuli, in_whole, layers_of

if TYPE_CHECKING:
    from plastic_cli import Run
    from plastic_eglp.config import Train

_LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Embedding, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention),
)
"""Layers whose weights are used in products, as far as torch.nn says it before the module is called."""


class LocalPlasticity:
    """Event-gated local plasticity: hidden layers learn by a local rule during events, the readout by its gradient.

    Each linear map, convolution, embedding and recurrent map of the module is a hidden layer, except the readout.
    During an event `.grad` of its weights is minus the change of equation (1) of rule.py for learning rate 1, so a step
    of torch.optim.SGD with rate lr is the step of LocalLinear and LocalConv2d. x is the input of the layer, y its
    activity after the nonlinearity; normalization, addition of a residual and dropout may lie between. Each position of
    a convolution, each token and each time step is a stimulus, and the mean of equation (1) is over all stimuli of all
    uses of a weight. Without an event, `.grad` of hidden weights stays as it is (None after `zero_grad`).

    The readout learns from every batch by the exact gradient of its own parameters. No error reaches its input.

    Give hidden layers and the readout a parameter group each: hidden layers with SGD and a low rate, 0.001 or less, the
    readout with the usual rate. High rates silence ReLU units. SoftHebb needs normalized inputs or the triangle
    activation of plastic_eglp; on other networks begin with feedback="direct". `loss` may depend on the output only: a
    penalty of the weights reaches no hidden layer.

    SGD makes the published step. With momentum or Adam a hidden weight keeps its moments during batches without an
    event and does not move, because torch's optimizers skip parameters whose `.grad` is None; call `zero_grad` with
    set_to_none=True, its default. Adam divides by the size of the changes, so it undoes the strength of events, and the
    rates that SoftHebb gives to single units hardly matter.

    A local loss takes the place of a local rule: "predsim", "pred" or "sim", equation (2) of rule.py. `.grad` of a
    hidden layer, with its biases and the parameters of normalization between it and its nonlinearity, is then the exact
    gradient of this loss, so any optimizer fits, for example Adam with rate 0.0005. y is averaged over tokens and time
    steps; for a 2D convolution see `LocalLosses`. The heads of the losses learn by an Adam of their own. "predsim" and
    "sim" read the labels from the gradient of a cross-entropy, "pred" applies `loss` to the output of its classifier.

    model: any module. local_rule: "oja", "hebb", "anti-oja", "bcm" or "softhebb", or a local loss. readout: name of a
    module, such as "fc" or "classifier.2", all parameters of which learn by the gradient; None: the layer of weights
    that is used last. events: controller of the events (default: ThresholdController()). A controller with
    `per_stimulus` selects single samples of each batch; they learn at once. feedback: "none", or "direct": p = m f'(z)
    with m = -error B^T, where error (batch, outputs) is the gradient of the losses with respect to the output, and B
    (units, outputs) is fixed and random; it replaces the local rule, and the biases of hidden layers learn too. signal:
    what the controller receives. "loss": the losses. "error": the largest negative entry of the error, for a
    cross-entropy one minus the probability of the label. "margin": the largest other logit minus the label's logit;
    labels are read from the gradient of a cross-entropy. "novelty": see `signals.Novelty`. "uncertainty": one minus the
    largest probability, of logits (batch, classes). inverse_temperature: of SoftHebb. similarity_weight: beta of
    "predsim". head_rate: learning rate of the heads of a local loss. modules, rest: which modules the rule teaches, and
    how the other parameters learn, among them affine parameters of normalization, which have no local rule; see
    `taught` and `rest_credit`. With a local loss the gradient cannot be the rest, because it would cross layers.
    generator: random generator (CPU) of the feedback weights and of the heads.

    parameters: what the rule teaches, by name; complete after the first call of `backward`, because the order of use
    decides. events: number of events. event_stimuli: number of samples in them. synaptic_updates: number of changes of
    single hidden weights. messages: number of numbers that hidden layers received from outside: for each sample of an
    event and each layer the strength, with direct feedback the error, and with a local loss the label. had_event: for
    each call of `backward`, whether there was an event.

    Raises UserError, with the name of the argument, for invalid values.
    """

    def __init__(
        self,
        model: nn.Module,
        local_rule: LocalRule | LocalLoss = "softhebb",
        readout: str | None = None,
        events: Controller | None = None,
        *,
        feedback: Feedback = "none",
        signal: Signal = "loss",
        inverse_temperature: float = 1.0,
        similarity_weight: float = SIMILARITY_WEIGHT,
        head_rate: float = HEAD_RATE,
        modules: str | Sequence[str] | None = None,
        rest: Rest = "none",
        generator: torch.Generator | None = None,
    ) -> None:
        _check_choice("local_rule", local_rule, (*LOCAL_RULES, *LOCAL_LOSSES))
        _check_choice("feedback", feedback, get_args(Feedback))
        _check_choice("signal", signal, get_args(Signal))
        if not 0 < inverse_temperature < float("inf"):
            raise UserError(f"inverse_temperature is {inverse_temperature}: it must be a finite number above 0.")
        if not 0 <= similarity_weight <= 1:
            raise UserError(f"similarity_weight is {similarity_weight}: it must lie between 0 and 1.")
        if not 0 <= head_rate < float("inf"):
            raise UserError(f"head_rate is {head_rate}: it must be a finite number of 0 or more.")
        if local_rule in LOCAL_LOSSES and (feedback != "none" or rest == "gradient"):
            given = f"feedback={feedback!r}" if feedback != "none" else "rest='gradient'"
            raise UserError(
                f"{given} does not go together with local_rule={local_rule!r}: a local loss has its own error, and no"
                " gradient crosses layers. Use feedback='none', and rest='none' or a credit rule."
            )
        if events is not None and not isinstance(events, Controller):
            raise UserError(f"events is {events!r}: give a controller, such as ThresholdController().")
        self.model: nn.Module | None = model
        self.local_rule, self.feedback, self.signal = local_rule, feedback, signal
        self.inverse_temperature = inverse_temperature
        self.controller = ThresholdController() if events is None else events
        self.generator = generator or torch.Generator().manual_seed(0)
        self.local_losses = (
            LocalLosses(local_rule, similarity_weight, head_rate, self.generator)
            if local_rule in LOCAL_LOSSES
            else None
        )
        self._chosen = taught(model, modules)
        self._modules = modules
        self._readout = None if readout is None else _parameters_of(model, readout)
        self._readout_is_named = readout is not None
        self._refuse_computed_weights(model)
        self._tied = _shared(model) & {id(value) for value in {**self._chosen, **(self._readout or {})}.values()}
        self.parameters: Mapping[str, nn.Parameter] = self._expected(model)
        self._rest = rest if rest == "gradient" else rest_credit(model, self.parameters, rest)
        self.events = 0
        self.event_stimuli = 0
        self.synaptic_updates = 0
        self.messages = 0
        self.had_event: list[bool] = []
        self._novelty = Novelty()
        self._thresholds: dict[str, Tensor] = {}
        self._feedback: dict[str, Tensor] = {}
        self._samples = Samples()

    def backward(self, inputs: Any, loss: Loss) -> Tensor:
        """Call the module; add to `.grad` of the readout, and during an event of the hidden layers.

        inputs, loss: see `Credit.backward`. Returns the losses (batch,), without a graph.
        Raises UserError if the module or its loss lacks what the rule needs.
        """
        model = attached(self.model, self._chosen)
        before = BeforePass.of(model) if isinstance(self._rest, Credit) else None
        every = named_parameters(model)
        recording = _Recording(every, self._in_graph(model), self._tied)
        if self.local_losses is not None:
            recording.outside = set(self._readout or {})
        with torch.enable_grad(), recording:
            output = call(model, inputs)
        if not recording.uses:
            raise UserError("the module calls no linear map or convolution with weights of its own: nothing can learn.")
        if self._readout is None:
            self._readout = _last_layer(recording, every)
        layers = layers_of(recording, self._hidden())
        self._set_parameters(every, layers, recording)
        losses, error = self._descend(model, output, loss)
        event = self._event(losses, output, error, recording.uses)
        self.had_event.append(event is not None)
        self._draw_feedback(layers, error)
        if event is not None:
            self.events += 1
            samples = int((event > 0).sum()) if isinstance(event, Tensor) else len(losses)
            self.event_stimuli += samples
            derivatives = cache(lambda: first_loss_derivatives(model, inputs, loss))
            if self.local_losses is not None:
                self.messages += samples * len(layers) * 2
                self._descend_local_losses(recording, layers, event, self._targets(output, loss, error), derivatives)
            else:
                outputs = error.shape[1] if error is not None and self.feedback == "direct" else 0
                self.messages += samples * len(layers) * (1 + outputs)
                with torch.no_grad(), torch.autocast(losses.device.type, enabled=False):
                    for name, stimuli in layers.items():
                        needed = self.feedback == "direct" or isinstance(event, Tensor)
                        of = self._samples.of(name, stimuli, len(losses), derivatives) if needed else None
                        self._learn(name, stimuli, event, error, of)
        if isinstance(self._rest, Credit) and before is not None:
            before.restore()
            self._rest.backward(inputs, loss)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the controller, of the feedback and of everything that changes while learning."""
        rest = self._rest
        return {
            "controller": self.controller.state_dict(),
            "novelty": {"mean": self._novelty.mean, "variance": self._novelty.variance},
            "thresholds": dict(self._thresholds),
            "feedback": dict(self._feedback),
            "generator": self.generator.get_state(),
            "readout": None if self._readout is None else list(self._readout),
            "parameters": list(self.parameters),
            "events": self.events,
            "event_stimuli": self.event_stimuli,
            "had_event": list(self.had_event),
            "synaptic_updates": self.synaptic_updates,
            "messages": self.messages,
            "rest": rest.state_dict() if isinstance(rest, Credit) else None,
            **({} if self.local_losses is None else {"local_losses": self.local_losses.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        self.controller.load_state_dict(state["controller"])
        self._novelty.mean, self._novelty.variance = state["novelty"]["mean"], state["novelty"]["variance"]
        self._thresholds, self._feedback = dict(state["thresholds"]), dict(state["feedback"])
        self.generator.set_state(state["generator"].cpu())
        every = named_parameters(attached(self.model, self.parameters))
        if state["readout"] is not None:
            self._readout = {name: every[name] for name in state["readout"]}
        known = {*self.parameters, *state["parameters"]}
        self.parameters = {name: parameter for name, parameter in every.items() if name in known}
        self.events = int(state["events"])
        self.event_stimuli = int(state["event_stimuli"])
        self.had_event = list(state["had_event"])
        self.synaptic_updates = int(state["synaptic_updates"])
        self.messages = int(state["messages"])
        if self.local_losses is not None:
            device = next(iter(every.values())).device
            self.local_losses.load_state_dict(state["local_losses"], device)
        if isinstance(self._rest, Credit):
            self._rest.load_state_dict(state["rest"])

    def detach(self) -> None:
        """Let go of the module, and of what is known about its layers."""
        if isinstance(self._rest, Credit):
            self._rest.detach()
        self.model, self.parameters, self._chosen, self._readout = None, {}, {}, {}

    # ------------------------------------------------------------------------------------------- which parameters

    def _refuse_computed_weights(self, model: nn.Module) -> None:
        """Raise UserError if a hidden layer computes its weights from other parameters, as spectral_norm does."""
        hidden = {id(parameter) for parameter in self._hidden().values()}
        for name, layer in model.named_modules():
            # `hasattr` would compute the weights, which changes the state of spectral_norm.
            computed = isinstance(layer, _LAYERS) and "weight" in dir(layer) and "weight" not in layer._parameters
            if computed and any(id(parameter) in hidden for parameter in layer.parameters()):
                raise UserError(
                    f"'{name}' computes its weights from other parameters, as weight_norm and spectral_norm do, and a"
                    " local rule changes weights themselves. Leave it out with modules=, or name it as readout=."
                )

    def _expected(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return what the rule will teach in layers of torch.nn, before a call shows which weights are used."""
        readout = self._taught_readout()
        found = {
            id(parameter)
            for layer in model.modules()
            if isinstance(layer, _LAYERS)
            for parameter in layer.parameters(recurse=False)
            if parameter.ndim > 1 or self.feedback == "direct" or self.local_losses is not None
        }
        return {
            name: parameter
            for name, parameter in named_parameters(model).items()
            if name in readout or (name in self._chosen and id(parameter) in found)
        }

    def _hidden(self) -> dict[str, nn.Parameter]:
        """Return the parameters that may learn locally."""
        readout = self._readout or {}
        return {
            name: parameter
            for name, parameter in self._chosen.items()
            if name not in readout and parameter.requires_grad
        }

    def _taught_readout(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the readout that learn: all if it was named, else those in `modules`."""
        readout = self._readout or {}
        named = self._readout_is_named
        return {
            name: value for name, value in readout.items() if (named or name in self._chosen) and value.requires_grad
        }

    def _in_graph(self, model: nn.Module) -> set[int] | None:
        """Return the ids of the parameters that need a graph: the readout, and the rest if it learns by the gradient.

        None: all, as long as the readout is unknown, and with a local loss.
        """
        if self._readout is None or self.local_losses is not None:
            return None
        needed = [*self._taught_readout().values()]
        if self._rest == "gradient":
            needed += others(model, self.parameters).values()
        return {id(parameter) for parameter in needed}

    def _set_parameters(
        self, every: Mapping[str, nn.Parameter], layers: Mapping[str, Stimuli], recording: _Recording
    ) -> None:
        """Note which parameters learn: the weights in use, their biases if these learn, and the readout."""
        if not layers and self._modules is not None and not self._taught_readout():
            raise UserError(
                f"modules={self._modules!r}: no linear map or convolution with these weights was called, so there is no"
                " local rule for them. Name other modules, and leave these to rest=."
            )
        names = {stimuli.name for stimuli in layers.values()} | set(self._taught_readout())
        if self.local_losses is not None:
            names |= {name for stimuli in layers.values() for name in self._block_of(stimuli, recording)}
        if self.feedback == "direct":
            hidden = self._hidden()
            names |= {name for stimuli in layers.values() for name in stimuli.biases if name in hidden}
        found = {name: parameter for name, parameter in every.items() if name in names}
        if isinstance(self._rest, Credit) and found.keys() - self.parameters.keys():
            rest_credit(attached(self.model, self.parameters), found, self._rest)
        self.parameters = found

    # ---------------------------------------------------------------------------------------------------- one batch

    def _descend(self, model: nn.Module, output: Any, loss: Loss) -> tuple[Tensor, Tensor | None]:
        """Add the gradient of the parameters that learn by it; return the losses, and the error if it is needed.

        The error (batch, outputs) is the gradient of each sample's loss with respect to its own output.
        """
        by_similarity = self.local_rule in ("predsim", "sim")
        uses_error = self.feedback == "direct" or self.signal in ("error", "margin") or by_similarity
        reason = f"feedback={self.feedback!r}" if self.feedback == "direct" else f"signal={self.signal!r}"
        instead = "feedback='none' and signal='loss'"
        if by_similarity and self.signal not in ("error", "margin"):
            reason, instead = f"local_rule={self.local_rule!r}", "local_rule='pred'"
        if uses_error and not isinstance(output, Tensor):
            raise UserError(
                f"{reason} needs the gradient of the losses with respect to the output, and the module returns a"
                f" {type(output).__name__}: let it return a tensor, or use {instead}."
            )
        with torch.enable_grad():
            if uses_error and not output.requires_grad:
                output = output.detach().requires_grad_()
            losses = checked_losses(loss(output))
            mean = losses.mean()
        if uses_error and (not output.ndim or len(output) != len(losses)):
            raise UserError(
                f"{reason} needs an output with one row for each sample: its shape is {tuple(output.shape)} for"
                f" {len(losses)} losses. Use {instead}."
            )
        readout = self._taught_readout()
        learning = dict(readout)
        if self._rest == "gradient":
            learning |= others(model, self.parameters)
        wanted = [*learning.values(), *([output] if uses_error else [])]
        gradients = torch.autograd.grad(mean, wanted, allow_unused=True) if wanted and mean.requires_grad else ()
        if readout and all(gradient is None for gradient in gradients[: len(readout)]):
            raise UserError(
                f"readout: the losses do not depend on '{next(iter(readout))}'. Choose the module that computes"
                " the output."
            )
        for parameter, gradient in zip(learning.values(), gradients, strict=False):
            if gradient is not None:
                accumulate(parameter, gradient)
        if not uses_error:
            return losses.detach(), None
        error = gradients[-1] if gradients else None
        if error is None:
            raise UserError(f"{reason} needs losses that depend on the output of the module.")
        return losses.detach(), (error * len(losses)).reshape(len(losses), -1)

    def _event(self, losses: Tensor, output: Any, error: Tensor | None, uses: Sequence[Use]) -> float | Tensor | None:
        """Return the strength of the event, one number or one for each sample (batch,); None if there is none."""
        signals = self._signals(losses, output, error, uses)
        controller = self.controller
        if not controller.per_stimulus:
            strength = controller.should_trigger(signals.mean())
            return strength if strength > 0 else None
        strengths: Tensor = controller.gate(signals)  # type: ignore[attr-defined]
        chosen = strengths.nonzero()[:, 0]
        if controller.budget is not None:
            # The tolerance: fractions of batches add up to the budget except for rounding.
            allowed = math.floor((controller.budget - controller.used) * len(signals) + 1e-6)
            strengths[chosen[allowed:]] = 0
            chosen = chosen[:allowed]
        controller.used += len(chosen) / len(signals)
        return strengths if len(chosen) else None

    def _signals(self, losses: Tensor, output: Any, error: Tensor | None, uses: Sequence[Use]) -> Tensor:
        """Return the controller's signal (batch,) for each sample."""
        if self.signal == "loss":
            return losses
        if self.signal == "novelty":
            return self._novelty.of(self._last_hidden(uses, len(losses)))
        if self.signal == "uncertainty":
            if not isinstance(output, Tensor) or output.ndim != 2:
                raise UserError("signal='uncertainty' needs logits (batch, classes): choose another signal.")
            return uncertainty(output.detach())
        assert error is not None
        if self.signal == "error":
            return -error.amin(1)
        labels = labels_of(output.detach(), error, "signal='margin'", "signal='loss' or 'error'")
        return margin(output.detach(), labels)

    def _last_hidden(self, uses: Sequence[Use], samples: int) -> Tensor:
        """Return the input of the readout (batch, units)."""
        assert self._readout is not None
        h = next((use.x for use in uses if use.name in self._readout), None)
        if h is None or len(h) != samples:
            found = "is no linear map" if h is None else f"receives {tuple(h.shape)} for {samples} samples"
            raise UserError(
                f"signal='novelty' needs a readout that receives one row for each sample:"
                f" '{next(iter(self._readout))}' {found}. Choose another readout or signal."
            )
        return h.detach().flatten(1)

    def _targets(self, output: Any, loss: Loss, error: Tensor | None) -> Targets:
        """Return what the local losses of a batch need."""
        if not isinstance(output, Tensor) or output.ndim < 2:
            raise UserError(
                f"local_rule={self.local_rule!r} needs an output of shape (batch, ...): the local classifiers learn to"
                " give the same. Let the module return such a tensor."
            )
        labels = None
        if error is not None and self.local_rule != "pred":
            labels = labels_of(output.detach(), error, f"local_rule={self.local_rule!r}", "local_rule='pred'")
        return Targets(lambda logits: checked_losses(loss(logits)), labels, len(output), output.shape[1:])

    def _descend_local_losses(
        self,
        recording: _Recording,
        layers: Mapping[str, Stimuli],
        event: float | Tensor,
        targets: Targets,
        derivatives: Derivatives,
    ) -> None:
        """Add the gradient of each layer's own loss, then let the heads learn."""
        assert self.local_losses is not None
        strengths = event.to(recording.uses[0].z.dtype) if isinstance(event, Tensor) else event
        for name, stimuli in layers.items():
            block = self._block_of(stimuli, recording)
            with torch.enable_grad(), torch.autocast(stimuli.W.device.type, enabled=False):
                y = self._samples.activity(name, stimuli, targets.samples, derivatives)
                found = self.local_losses.gradients(name, y, list(block.values()), targets, strengths)
            for parameter, gradient in zip(block.values(), found, strict=True):
                if gradient is not None:
                    accumulate(parameter, gradient)
            self.synaptic_updates += stimuli.W.numel()
        self.local_losses.step()

    def _block_of(self, stimuli: Stimuli, recording: _Recording) -> dict[str, nn.Parameter]:
        """Return the parameters that act on a layer's activity: weights, biases, and those of normalization."""
        names = [stimuli.name, *stimuli.biases]
        # Without a nonlinearity the response itself is the activity.
        followed = [use for use in stimuli.uses if use.activations]
        names += [recording.name_of(value) for use in followed for value in recording.between.get(id(use), ())]
        hidden = self._hidden()
        return {name: hidden[name] for name in names if name is not None and name in hidden}

    def _learn(
        self, name: str, stimuli: Stimuli, event: float | Tensor, error: Tensor | None, sample: Tensor | None
    ) -> None:
        """Add the weight change of a hidden layer. sample (n,): the sample of each stimulus, if it matters."""
        W = stimuli.W
        # `.grad` is minus the change. A strength that all stimuli share is part of the rate.
        rate, strengths = (-1.0, event.to(W)[sample]) if isinstance(event, Tensor) else (-event, 1.0)
        change = torch.zeros_like(W)
        if self.feedback == "direct":
            assert error is not None
            m = rule.direct_feedback(error.to(W), self._feedback[name].to(W))
            factors = rule.direct(m[sample], stimuli.derivative(), strengths)
            self._teach_biases(stimuli, factors.post * (rate / len(factors.post)))
        else:
            factors = self._local_factors(name, stimuli, strengths)
        if self.local_rule == "softhebb" and self.feedback == "none":
            add_change(change, W, factors, 1.0, stimuli.add_products)
            mean = strengths.mean() if isinstance(strengths, Tensor) else strengths
            change = softhebb_step(W, change, rate * mean)
        else:
            add_change(change, W, factors, rate, stimuli.add_products)
        parameter = self.parameters[stimuli.name]
        accumulate(parameter, stimuli.in_parameter(change, parameter))
        self.synaptic_updates += W.numel()

    def _local_factors(self, name: str, stimuli: Stimuli, strengths: float | Tensor) -> rule.Factors:
        """Return the factors of the local rule; BCM's thresholds slide after they were used."""
        W, y = stimuli.W, stimuli.y
        theta = self._thresholds.get(name, torch.ones(len(W))).to(W)
        factors = factors_of(
            cast("LocalRule", self.local_rule),
            stimuli.z,
            y,
            W,
            theta=theta,
            inverse_temperature=self.inverse_temperature,
            event=strengths,
        )
        if self.local_rule == "bcm":
            self._thresholds[name] = rule.bcm_threshold(theta, y, BCM_RATE, strengths)
        return factors

    def _teach_biases(self, stimuli: Stimuli, post: Tensor) -> None:
        """Add the changes of biases, the synapses of an input that is always 1. post (n, out): changes by stimulus."""
        for name, use, rows in zip(stimuli.biases, stimuli.uses, stimuli.by_use(post), strict=True):
            if name is not None and name in self.parameters and use.product.bias is not None:
                parameter = self.parameters[name]
                accumulate(parameter, in_whole(rows.sum(0), use.product.bias, parameter))

    def _draw_feedback(self, layers: Mapping[str, Stimuli], error: Tensor | None) -> None:
        """Draw the feedback weights (units, outputs) of layers that are used for the first time."""
        if self.feedback != "direct" or error is None:
            return
        for name, stimuli in layers.items():
            shape = (len(stimuli.W), error.shape[1])
            B = self._feedback.get(name)
            if B is None:
                self._feedback[name] = torch.randn(shape, generator=self.generator)
            elif B.shape != shape:
                raise UserError(
                    f"feedback='direct' needs outputs of one size: each sample had {B.shape[1]} numbers before, and now"
                    f" {shape[1]}. Use feedback='none' for outputs of variable size."
                )


def make_credit(config: Train, model: nn.Module, run: Run) -> LocalPlasticity | None:
    """Return the credit rule that a configuration describes, for a network of the run; None for the gradient."""
    if config.update == "backprop":
        return None
    return LocalPlasticity(
        model,
        local_rule=config.local_rule,
        similarity_weight=config.similarity_weight,
        head_rate=config.local_learning_rate if config.local_rule in LOCAL_LOSSES else HEAD_RATE,
        events=make_controller(config, run.seed),
        feedback=config.feedback,
        signal=config.event_signal,
        inverse_temperature=config.inverse_temperature,
        generator=run.generator("feedback"),
    )


class _Recording(Recording):
    """Records the uses of weights; of all parameters, only those in `in_graph` (ids; None: all) receive a gradient.

    tied: ids of weights that the readout may share with an embedding. As embeddings they receive no gradient, because
    an error would have to reach the input of the readout.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], in_graph: set[int] | None, tied: set[int]) -> None:
        super().__init__(parameters)
        self._in_graph, self._tied = in_graph, tied
        # With local losses: the names of weights whose input keeps its graph; None without local losses.
        self.outside: set[str] | None = None
        # The parameters that act between a response and its nonlinearity, by the id of the use.
        self.between: dict[int, list[Tensor]] = {}
        self._detached: dict[int, Tensor] = {}
        self._of_detached: dict[int, nn.Parameter] = {}
        # Tensors that are computed from parameters alone, by id; they are kept, so that no id is used again.
        self._computed: dict[int, Tensor] = {}

    def handle(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Carry out a torch function with the parameters that need no graph detached."""
        without_graph = partial(self._without_graph, embeds=function is nn.functional.embedding)
        args, kwargs = mapped(without_graph, args), mapped(without_graph, kwargs)
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if given and all(self._is_of_parameters(value) for value in given):
            # Not a layer, even if it is a product: no activity takes part.
            result = function(*args, **kwargs)
            parts = result if isinstance(result, tuple | list) else [result]
            self._computed |= {id(part): part for part in parts if isinstance(part, Tensor)}
            return result
        if self.outside is not None and args and id(args[0]) in self._carried:
            own = [value for value in given if isinstance(value, nn.Parameter)]
            for use, _ in self._carried[id(args[0])].uses:
                self.between.setdefault(id(use), []).extend(own)
        return super().handle(function, args, kwargs)

    def multiply(
        self,
        name: str,
        product: Product,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Tensor:
        """Compute a product; with local losses no gradient passes to the input of a hidden layer."""
        if self.outside is None or name in self.outside or not product.x.requires_grad:
            return super().multiply(name, product, function, args, kwargs)
        return product.apply(product.x.detach(), product.weight, product.bias)

    def _is_of_parameters(self, value: Tensor) -> bool:
        return isinstance(value, nn.Parameter) or id(value) in self._of_detached or id(value) in self._computed

    def name_of(self, weight: Tensor) -> str | None:
        """Return the name of a parameter that is observed, also for a view of it."""
        whole = weight if weight._base is None else weight._base
        return super().name_of(self._of_detached.get(id(whole), weight))

    def _without_graph(self, value: Tensor, *, embeds: bool) -> Tensor:
        if not isinstance(value, nn.Parameter):
            return value
        learns = self._in_graph is None or id(value) in self._in_graph
        return value if learns and not (embeds and id(value) in self._tied) else self._detach(value)

    def _detach(self, parameter: nn.Parameter) -> Tensor:
        """Return the parameter without a graph; always the same tensor, so that its uses can be recognized."""
        found = self._detached.get(id(parameter))
        if found is None:
            found = self._detached[id(parameter)] = parameter.detach()
            self._of_detached[id(found)] = parameter
        return found


def _parameters_of(model: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """Return the parameters of a module by its name; raises UserError if there is none that can learn."""
    names = {id(parameter): key for key, parameter in named_parameters(model).items()}
    # A weight that the module shares with an earlier one has the earlier name in `named_parameters`.
    listed = list(model.named_parameters(remove_duplicate=False))
    every = dict(zip(unwrapped(key for key, _ in listed), (parameter for _, parameter in listed), strict=True))
    inside = {names[id(value)]: value for key, value in every.items() if f"{key}.".startswith(f"{name}.")}
    if not inside:
        known = sorted({key.rsplit(".", depth)[0] for key in every for depth in range(1, key.count(".") + 1)})
        raise UserError(
            f"readout: there is no module '{name}' with parameters.{did_you_mean(name, known)} print(model) shows their"
            " names."
        )
    found = {key: value for key, value in inside.items() if value.requires_grad}
    if not found:
        raise UserError(f"readout: no parameter of '{name}' requires a gradient. Call requires_grad_(True) on it.")
    return found


def _shared(model: nn.Module) -> set[int]:
    """Return the ids of the parameters that several layers share."""
    times = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return {number for number, count in times.items() if count > 1}


def _last_layer(recording: Recording, every: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return weight and bias of the layer that is used last."""
    use = recording.uses[-1]
    names = (use.name, None if use.product.bias is None else recording.name_of(use.product.bias))
    return {name: every[name] for name in names if name is not None}


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        suggestion = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise UserError(f"{name} is {value!r}: it must be one of {', '.join(choices)}.{suggestion}")
