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
