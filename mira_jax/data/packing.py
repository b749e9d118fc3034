"""Several step examples in one row: static shapes, and random access to any batch of any epoch.

A packed batch is a dict of NumPy arrays. B rows, T = `row_length` tokens, S steps in a row, R response tokens
in a row; S and R are the largest that the plan needs, so shapes are the same for a whole run.

    name                 shape  dtype    meaning
    tokens               BxT    int32    the examples of a row one after another, then padding (0). An example is its
                                         prompt and its response without the last token, which is only predicted
    segment_ids          BxT    int32    1, 2, ... for the examples of a row; 0 is padding. Attention stays inside a segment
    positions            BxT    int32    0, 1, ... within each segment; 0 in padding
    response_index       BxR    int32    t whose hidden state predicts the response token; 0 where masked
    response_targets     BxR    int32    the response token, end token included; 0 where masked
    response_mask        BxR    float32  1 for a response token, 0 for padding
    response_segment     BxR    int32    s in [0, S): which step of the row the token belongs to; 0 where masked
    last_prompt_index    BxS    int32    t of the last prompt token of step s (what a critic reads); 0 where masked
    step_mask            BxS    float32  1 for a step, 0 for padding
    step_id              BxS    int32    j in the step index of the reader; -1 where masked
    COLUMN               BxS    float32  each column of `Prepared.columns`; 0 where masked
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mira_jax.data.steps import StepExamples
from mira_jax.errors import UserError

Batch = dict[str, np.ndarray]
OPEN_ROWS = 64
"""A step goes to the first row with room among the last this many: nearly as tight as first-fit over all rows, in linear time."""
ROUND_RESPONSES = 8


class PackedBatches(Sequence[Batch]):
    """All batches of a run, in order: a pure function of its arguments, so any of them can be made at any time.

    Within an epoch every chosen step comes exactly once. Each epoch is shuffled and packed anew from (seed, epoch);
    its rows are spread evenly over its batches, and rows that are missing to a full batch are empty.
    """

    def __init__(
        self,
        examples: StepExamples,
        steps: np.ndarray,
        columns: Mapping[str, np.ndarray],
        *,
        row_length: int,
        rows: int,
        epochs: float = 1,
        batches: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        reads_responses: bool = True,
        drop_too_long: bool = False,
    ):
        """Plans every row.

        Args:
            steps: the numbers of the steps to pack, each at most once.
            columns: float32 [N] over all steps, as in `Prepared.columns`.
            row_length: T.
            rows: B, of one batch over all processes.
            epochs: passes over `steps`; a fraction ends within an epoch.
            batches: if given, the number of batches, in place of `epochs`.
            reads_responses: False packs prompts alone.
            drop_too_long: leave out steps longer than `row_length`, counted in `dropped`, instead of refusing them.

        Raises:
            UserError: a step is longer than `row_length`, or nothing is left.
        """
        self._examples = examples
        self._columns = {name: np.asarray(column, np.float32) for name, column in columns.items()}
        self._reads_responses = reads_responses
        self.row_length, self.rows = row_length, rows
        steps = np.asarray(steps, np.int64)
        lengths = self._lengths(steps)
        fits = lengths <= row_length
        self.dropped = int((~fits).sum())
        if self.dropped and not drop_too_long:
            raise UserError(
                f"data.row_length: {self.dropped} of {len(steps)} steps are longer than {row_length} tokens "
                f"(the longest has {int(lengths.max())}); raise it, lower data.prompt.max_tokens, or leave such steps out "
                "with data.drop_too_long=true"
            )
        steps, lengths = steps[fits], lengths[fits]
        if not len(steps):
            raise UserError("data: no steps to train on")
        self.steps = steps
        self._rows: list[np.ndarray] = []
        self._first_row = [0]
        """Rows of batch k: `_rows[_first_row[k] : _first_row[k + 1]]`."""
        self.epoch_ends: list[int] = []
        """The number of batches up to the end of each whole epoch."""
        limit = None
        epoch = 0
        while limit is None or len(self) < limit:
            self._plan_epoch(steps, lengths, seed, epoch, shuffle)
            epoch += 1
            if batches is not None:
                limit = batches
            elif epoch >= epochs:
                whole = len(self) - (self.epoch_ends[-2] if epoch > 1 else 0)
                limit = len(self) - whole + max(1, round(whole * (epochs - epoch + 1)))
        self._first_row = self._first_row[: limit + 1]
        self.steps_per_row = max(map(len, self._rows))
        responses = examples.response_lengths
        most = max(int(responses[row].sum()) for row in self._rows) if reads_responses else 0
        self.responses_per_row = -(-most // ROUND_RESPONSES) * ROUND_RESPONSES

    def _lengths(self, steps: np.ndarray) -> np.ndarray:
        """Tokens of a row that each step takes."""
        prompts = self._examples.prompt_lengths[steps]
        return prompts + self._examples.response_lengths[steps] - 1 if self._reads_responses else prompts

    def _plan_epoch(self, steps: np.ndarray, lengths: np.ndarray, seed: int, epoch: int, shuffle: bool) -> None:
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(len(steps)) if shuffle else np.arange(len(steps))
        rows = [steps[order[row]] for row in first_fit(lengths[order], self.row_length)]
        if shuffle:
            rows = [rows[index] for index in generator.permutation(len(rows))]
        batches = -(-len(rows) // self.rows)
        sizes = [len(part) for part in np.array_split(np.arange(len(rows)), batches)]
        self._rows += rows
        self._first_row += (self._first_row[-1] + np.cumsum(sizes)).tolist()
        self.epoch_ends.append(len(self))

    def __len__(self) -> int:
        return len(self._first_row) - 1

    def row_steps(self, batch: int) -> list[np.ndarray]:
        """The steps of each row of a batch, without the empty rows."""
        return self._rows[self._first_row[batch] : self._first_row[batch + 1]]

    def __getitem__(self, batch: int) -> Batch:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        return self.pack(self.row_steps(batch))

    def pack(self, rows: Sequence[np.ndarray], count: int | None = None) -> Batch:
        """The arrays of `count` rows (see the module's docstring), by default of a batch; those beyond `rows` are empty."""
        B, T, S, R = count or self.rows, self.row_length, self.steps_per_row, self.responses_per_row
        arrays: Batch = {name: np.zeros((B, T), np.int32) for name in ("tokens", "segment_ids", "positions")}
        arrays |= {name: np.zeros((B, R), np.int32) for name in ("response_index", "response_targets", "response_segment")}
        arrays["response_mask"] = np.zeros((B, R), np.float32)
        arrays["last_prompt_index"] = np.zeros((B, S), np.int32)
        arrays["step_mask"] = np.zeros((B, S), np.float32)
        arrays["step_id"] = np.full((B, S), -1, np.int32)
        arrays |= {name: np.zeros((B, S), np.float32) for name in self._columns}
        for b, steps in enumerate(rows):
            t = r = 0
            for s, step in enumerate(steps.tolist()):
                prompt, response = self._examples.prompt(step), self._examples.response(step)
                tokens = np.concatenate([prompt, response[:-1]]) if self._reads_responses else prompt
                length, last = len(tokens), t + len(prompt) - 1
                arrays["tokens"][b, t : t + length] = tokens
                arrays["segment_ids"][b, t : t + length] = s + 1
                arrays["positions"][b, t : t + length] = np.arange(length)
                if self._reads_responses:
                    span = slice(r, r + len(response))
                    arrays["response_index"][b, span] = np.arange(last, last + len(response))
                    arrays["response_targets"][b, span] = response
                    arrays["response_segment"][b, span] = s
                    arrays["response_mask"][b, span] = 1
                    r += len(response)
                arrays["last_prompt_index"][b, s] = last
                arrays["step_mask"][b, s] = 1
                arrays["step_id"][b, s] = step
                for name, column in self._columns.items():
                    arrays[name][b, s] = column[step]
                t += length
        return arrays


class Share(Sequence[Batch]):
    """The same rows of each batch, and no other is made: what one of several processes trains on."""

    def __init__(self, packed: PackedBatches, rows: Sequence[int]):
        self._packed = packed
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, batch: int) -> Batch:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        steps = self._packed.row_steps(batch)
        return self._packed.pack([steps[row] if row < len(steps) else np.zeros(0, np.int64) for row in self._rows], len(self._rows))


def first_fit(lengths: np.ndarray, row_length: int) -> Iterator[list[int]]:
    """Yields rows, each a list of indices into `lengths` whose sum is at most `row_length`."""
    rows: list[list[int]] = []
    room = np.zeros(OPEN_ROWS, np.int64)
    for index, length in enumerate(lengths.tolist()):
        slot = int(np.argmax(room[: len(rows)] >= length)) if rows else 0
        if rows and room[slot] >= length:
            rows[slot].append(index)
            room[slot] -= length
        elif len(rows) < OPEN_ROWS:
            room[len(rows)] = row_length - length
            rows.append([index])
        else:
            fullest = int(np.argmin(room))
            yield rows[fullest]
            rows[fullest] = [index]
            room[fullest] = row_length - length
    yield from rows
