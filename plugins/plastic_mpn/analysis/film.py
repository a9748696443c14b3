"""`plastic render mpn`: one episode as a film, and single steps of it as images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plastic_cli import Run, UserError
from plastic_cli.figures.encoding import check_film_can_be_written
from plastic_cli.figures.film import as_loop, pace
from plastic_cli.numerics.seeds import seed_sequence
from plastic_mpn.analysis.choice import choice_of
from plastic_mpn.analysis.frames import choose_steps, episode_frames
from plastic_mpn.analysis.recording import draws_pictures, record_episodes
from plastic_mpn.environments.greedy import evaluation_seeds
from plastic_mpn.environments.names import Names

if TYPE_CHECKING:
    from plastic_mpn.config import Render
    from plastic_mpn.trained import Trained


def render_episode(config: Render, run: Run, trained: Trained) -> None:
    """Write one greedy episode as a film, and the steps in `config.still`, or the last one, as images.

    Raises UserError if the episode has no such step, or if MP4 cannot be written.
    """
    check_film_can_be_written(config.video)
    seed = evaluation_seeds(seed_sequence(run.seed, "test episodes"), config.episode + 1)[-1]
    network, env_id = trained.network, trained.env_id
    limit, options = trained.max_steps, trained.options
    (episode,) = record_episodes(network, env_id, [seed], max_steps=limit, options=options)
    last = len(episode) - 1
    absent = [step for step in config.still if not 0 <= step <= last]
    if absent:
        raise UserError(f"--still {absent[0]}: episode {config.episode} has the steps 0 to {last}.")
    shown = choose_steps(len(episode), config.frames)
    stills = tuple(config.still) or (last,)
    needed = sorted({*shown, *stills})
    if draws_pictures(env_id, max_steps=limit, options=options):
        # Play again, drawing only the steps that are shown: the images of all steps would not fit into memory.
        (episode,) = record_episodes(network, env_id, [seed], max_steps=limit, options=options, render=needed)
    else:
        run.message(f"{env_id} cannot draw itself here: the film shows the hidden state instead")
    drawn = episode_frames(
        episode,
        needed,
        title=f"{run.config.get('core', 'mpn')} on {env_id}, seed {run.seed}, episode {config.episode}",
        choice=choice_of(network, episode.outputs, trained.names.actions),
        names=trained.names,
        note=_note(len(episode), shown, trained.names, has_m=episode.matrices is not None),
    )
    if len(shown) < len(episode):
        run.message(f"showing {len(shown)} of {len(episode)} steps; raise --frames to show more")
    by_step = dict(zip(needed, drawn, strict=True))
    frames = [by_step[step] for step in shown]
    seconds = config.frame_seconds or pace(len(frames))
    run.save_video(f"episode_{config.episode}", as_loop(frames, seconds), seconds, config.video)
    for step in stills:
        run.save_image(f"episode_{config.episode}_step_{step}", by_step[step])
    run.results["render/return"] = episode.episode_return


def _note(length: int, shown: tuple[int, ...], names: Names, *, has_m: bool) -> str:
    """Return what all frames have in common: the steps of a frame, and how the hidden units are sorted."""
    stride = shown[1] - shown[0] if len(shown) > 1 else length
    step = "" if names.step_seconds is None else f" of {names.step_seconds:g} s"
    frame = f"{stride} steps{step}" if stride > 1 else f"1 step{step}"
    return f"Each frame is {frame}. Units sorted by the first principal component of {'M' if has_m else 'h'}."
