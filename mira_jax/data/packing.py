"""Packs several examples into one row, with static shapes and random access to any batch of any epoch.

A packed batch is a dict of NumPy arrays. B rows, T = `row_length` tokens, S steps in a row, R response tokens in a row; S and
R are the maxima over the plan, so shapes are constant within a run. A step is a turn of an example
(`mira_jax.data.examples`); by default each example has one.

    name                 shape  dtype    meaning
    tokens               BxT    int32    the examples of a row one after another, then padding (0). The last token of an
                                         example, the end of a response, is left out: it is only a target
    segment_ids          BxT    int32    1, 2, ... for the examples of a row; 0 is padding. Attention stays inside a segment
    positions            BxT    int32    0, 1, ... within each segment; 0 in padding
    response_index       BxR    int32    t whose hidden state predicts the response token; 0 where masked
    response_targets     BxR    int32    the response token, end token included; 0 where masked
    response_mask        BxR    float32  1 for a response token, 0 for padding
    response_segment     BxR    int32    s in [0, S): which step of the row the token belongs to; 0 where masked
    last_prompt_index    BxS    int32    t of the last prompt token of step s (read by critics); 0 where masked
    step_mask            BxS    float32  1 for a step, 0 for padding
    step_id              BxS    int32    j in the step index of the reader; -1 where masked
    COLUMN               BxS    float32  each column of `Prepared.columns`; 0 where masked
    TOKEN_COLUMN         BxR... its own  each column of `Prepared.token_columns`; 0 where masked
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import DTypeLike

from mira_jax.data.examples import Examples
from mira_jax.errors import UserError
from mira_jax.trajectories.token_columns import TokenColumn, starts_of

Batch = dict[str, np.ndarray]
OPEN_ROWS = 64
"""Number of recent rows that are tried for a step; it goes into the first with room. This packs nearly as tightly as first-fit
over all rows, in linear time."""
ROUND_RESPONSES = 8


class PackedBatches(Sequence[Batch]):
    """All batches of a run, in order. They are a pure function of the arguments, so any batch can be made at any time.

    In each epoch, every chosen step occurs exactly once, and so does every example that contains one. Each epoch is shuffled
    and packed separately, from (seed, epoch). Its rows are spread evenly over its batches, and incomplete batches are filled
    with empty rows.
    """

    def __init__(
        self,
        examples: Examples,
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
        token_columns: Mapping[str, TokenColumn] | None = None,
    ):
        """Plans every row.

        Args:
            steps: indices of the steps to pack, increasing. Other steps of the same examples serve only as context.
            columns: float32 [N] over all steps, as in `Prepared.columns`.
            row_length: T.
            rows: B, the rows of one batch over all processes.
            epochs: passes over `steps`. A fraction ends within an epoch.
            batches: the number of batches. If given, it replaces `epochs`.
            reads_responses: if False, examples are packed up to the last prompt and without response arrays (R = 0).
            drop_too_long: leave out examples longer than `row_length` and count them in `dropped`, instead of raising an
                error.
            token_columns: as in `Prepared.token_columns`. They have numbers for all response tokens of the steps to pack.

        Raises:
            UserError: an example is longer than `row_length`, or no examples are left.
        """
        self._examples = examples
        self._token_columns = dict(token_columns or {})
        self._columns = {name: np.asarray(column, np.float32) for name, column in columns.items()}
        self._reads_responses = reads_responses
        self.row_length, self.rows = row_length, rows
        wanted_N = np.zeros(examples.steps, bool)
        wanted_N[steps] = True
        self._packs_M = wanted_N[examples.turn_step]
        self._turns_E = examples.sum_turns(self._packs_M.astype(np.int64))
        self._lengths_E = self._lengths()
        chosen = np.flatnonzero(self._turns_E)
        lengths = self._lengths_E[chosen]
        fits = lengths <= row_length
        self.dropped = int((~fits).sum())
        if self.dropped and not drop_too_long:
            kind = "steps" if len(examples) == examples.steps else "examples"
            raise UserError(
                f"data.row_length: {self.dropped} of {len(chosen)} {kind} are longer than {row_length} tokens "
                f"(the longest has {int(lengths.max())}); raise it, lower data.prompt.max_tokens, or leave such {kind} out "
                "with data.drop_too_long=true"
            )
        chosen, lengths = chosen[fits], lengths[fits]
        if not len(chosen):
            raise UserError("data: no steps to train on")
        self.steps = self._steps_of(chosen)
        """Indices of the packed steps, without the dropped ones."""
        self._check_token_columns()
        self._order = np.zeros(0, np.int64)
        """The examples of all rows, row after row."""
        self._row_ends = np.zeros(1, np.int64)
        """Row i is `_order[_row_ends[i] : _row_ends[i + 1]]`."""
        self._first_row = [0]
        """The rows of batch k are numbers `_first_row[k]` to `_first_row[k + 1] - 1`."""
        self.epoch_ends: list[int] = []
        """For each whole epoch, the number of batches up to its end."""
        limit = None
        epoch = 0
        while limit is None or len(self) < limit:
            self._plan_epoch(chosen, lengths, seed, epoch, shuffle)
            epoch += 1
            if batches is not None:
                limit = batches
            elif epoch >= epochs:
                whole = len(self) - (self.epoch_ends[-2] if epoch > 1 else 0)
                limit = len(self) - whole + max(1, round(whole * (epochs - epoch + 1)))
        self._first_row = self._first_row[: limit + 1]
        self.steps_per_row = int(self._sum_rows(self._turns_E).max())
        responses_E = examples.sum_turns((examples.turn_stop - examples.turn_start) * self._packs_M)
        most = int(self._sum_rows(responses_E).max()) if reads_responses else 0
        self.responses_per_row = -(-most // ROUND_RESPONSES) * ROUND_RESPONSES

    def _check_token_columns(self) -> None:
        turns = np.flatnonzero(np.isin(self._examples.turn_step, self.steps))
        steps, lengths = self._examples.turn_step[turns], (self._examples.turn_stop - self._examples.turn_start)[turns]
        for name, column in self._token_columns.items():
            if (wrong := np.diff(column.starts)[steps] != lengths).any():
                step = int(steps[wrong][0])
                raise ValueError(f"token column {name}: {len(column[step])} numbers for {int(lengths[wrong][0])} tokens of step {step}")

    def empty_token_column(self, shape: tuple[int, ...] = (), dtype: DTypeLike = np.float32) -> TokenColumn:
        """Zeros of this shape for each response token of the packed steps."""
        lengths_N = np.zeros(self._examples.steps, np.int64)
        turns = np.flatnonzero(np.isin(self._examples.turn_step, self.steps))
        lengths_N[self._examples.turn_step[turns]] = (self._examples.turn_stop - self._examples.turn_start)[turns]
        starts = starts_of(lengths_N)
        return TokenColumn(np.zeros((int(starts[-1]), *shape), dtype), starts)

    def widen(self, steps_per_row: int, responses_per_row: int) -> None:
        """Makes S and R at least this large, so that several plans have arrays of the same shapes."""
        self.steps_per_row = max(self.steps_per_row, steps_per_row)
        self.responses_per_row = max(self.responses_per_row, responses_per_row)

    def _lengths(self) -> np.ndarray:
        """Number of tokens that each example occupies in a row, [E]."""
        prompts_E = self._examples.prompt_lengths
        return prompts_E + np.maximum(self._examples.response_lengths - 1, 0) if self._reads_responses else prompts_E

    def _steps_of(self, chosen: np.ndarray) -> np.ndarray:
        chosen_E = np.zeros(len(self._examples), bool)
        chosen_E[chosen] = True
        return self._examples.turn_step[self._packs_M & np.repeat(chosen_E, np.diff(self._examples.first_turn))]

    def _plan_epoch(self, chosen: np.ndarray, lengths: np.ndarray, seed: int, epoch: int, shuffle: bool) -> None:
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(len(chosen)) if shuffle else np.arange(len(chosen))
        rows = list(first_fit(lengths[order], self.row_length))
        if shuffle:
            rows = [rows[index] for index in generator.permutation(len(rows))]
        batches = -(-len(rows) // self.rows)
        sizes = [len(part) for part in np.array_split(np.arange(len(rows)), batches)]
        flat = np.fromiter(itertools.chain.from_iterable(rows), np.int64, len(chosen))
        self._order = np.concatenate([self._order, chosen[order[flat]]])
        self._row_ends = np.concatenate([self._row_ends, self._row_ends[-1] + np.cumsum([len(row) for row in rows])])
        self._first_row += (self._first_row[-1] + np.cumsum(sizes)).tolist()
        self.epoch_ends.append(len(self))

    def __len__(self) -> int:
        return len(self._first_row) - 1

    @property
    def packed_steps(self) -> int:
        """Number of steps in all batches. A step is counted each time it occurs."""
        return int(self._turns_E[self._order[: self._row_ends[self._first_row[-1]]]].sum())

    def _sum_rows(self, values_E: np.ndarray) -> np.ndarray:
        """Sums a quantity of each example over the examples of each row."""
        return np.add.reduceat(values_E[self._order], self._row_ends[:-1])

    def row_examples(self, batch: int) -> list[np.ndarray]:
        """The examples of each non-empty row of a batch."""
        ends = self._row_ends[self._first_row[batch] : self._first_row[batch + 1] + 1].tolist()
        return [self._order[start:stop] for start, stop in itertools.pairwise(ends)]

    def __getitem__(self, batch: int) -> Batch:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        return self.pack(self.row_examples(batch))

    def pack(self, rows: Sequence[np.ndarray], count: int | None = None) -> Batch:
        """The arrays of `count` rows (see the module docstring), by default of one batch. Rows beyond `rows` are empty."""
        B, T, S, R = count or self.rows, self.row_length, self.steps_per_row, self.responses_per_row
        arrays: Batch = {name: np.zeros((B, T), np.int32) for name in ("tokens", "segment_ids", "positions")}
        arrays |= {name: np.zeros((B, R), np.int32) for name in ("response_index", "response_targets", "response_segment")}
        arrays["response_mask"] = np.zeros((B, R), np.float32)
        arrays["last_prompt_index"] = np.zeros((B, S), np.int32)
        arrays["step_mask"] = np.zeros((B, S), np.float32)
        arrays["step_id"] = np.full((B, S), -1, np.int32)
        arrays |= {name: np.zeros((B, S), np.float32) for name in self._columns}
        for name, column in self._token_columns.items():
            arrays[name] = np.zeros((B, R, *column.values.shape[1:]), column.values.dtype)
        source = self._examples
        for b, row in enumerate(rows):
            t = r = s = 0
            for segment, example in enumerate(row.tolist(), 1):
                begin, length = int(source.starts[example]), int(self._lengths_E[example])
                arrays["tokens"][b, t : t + length] = source.tokens[begin : begin + length]
                arrays["segment_ids"][b, t : t + length] = segment
                arrays["positions"][b, t : t + length] = np.arange(length)
                for turn in range(source.first_turn[example], source.first_turn[example + 1]):
                    if not self._packs_M[turn]:
                        continue
                    start, stop, step = int(source.turn_start[turn]), int(source.turn_stop[turn]), int(source.turn_step[turn])
                    last = t + start - 1
                    if self._reads_responses:
                        span = slice(r, r + stop - start)
                        arrays["response_index"][b, span] = np.arange(last, last + stop - start)
                        arrays["response_targets"][b, span] = source.tokens[begin + start : begin + stop]
                        arrays["response_segment"][b, span] = s
                        arrays["response_mask"][b, span] = 1
                        for name, column in self._token_columns.items():
                            arrays[name][b, span] = column[step]
                        r += stop - start
                    arrays["last_prompt_index"][b, s] = last
                    arrays["step_mask"][b, s] = 1
                    arrays["step_id"][b, s] = step
                    for name, column in self._columns.items():
                        arrays[name][b, s] = column[step]
                    s += 1
                t += length
        return arrays


class Share(Sequence[Batch]):
    """A fixed subset of the rows of each batch, for one of several processes. Other rows are not made."""

    def __init__(self, packed: PackedBatches, rows: Sequence[int]):
        self._packed = packed
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, batch: int) -> Batch:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        examples = self._packed.row_examples(batch)
        return self._packed.pack([examples[row] if row < len(examples) else np.zeros(0, np.int64) for row in self._rows], len(self._rows))


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
