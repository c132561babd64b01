"""When a message names the cause: the same words for every tool.

A message names the cause of a pair if it holds one of the words here (regular expressions, upper or lower case), or if
its traceback shows the line of the program that is wrong. The words are the faulty argument, the faulty operation, or
the mistake itself, in any wording that would let a person go and fix it; they are wide, in favour of tools that do not
know what CTC is. Of ctcguard, which gives a mistake a code and a cause, these are asked for on top (oracle.py).
"""

from __future__ import annotations

import re

from benchmarks.detection.observation import Alarm, Ending

HEAD = r"num_classes|n_class|classes|vocab|out_features|lm_head|head|label.*(range|greater|large|beyond|bound)"
BLANK = r"blank|pad_token"
INPUT_LENGTHS = r"input.?length|(few|fewer|many|valid|number of) frames|paddings?\b|too short"
TARGET_LENGTHS = r"target.?length|label.?length|targets\b.*(size|shape|length|sum)|size.*'targets'"
LABELS = r"label|target|token|transcript"
SOFTMAX = r"softmax|probabilit|logits|not normali[sz]ed|unnormali[sz]ed|sum to"
TOKENIZER = r"tokeni[sz]er|\bunk|unknown|out.of.vocabulary|vocab|upper|lower|case"
FEATURES = r"\b(nan|inf) +inputs?\b|feature|front.?end|\b(log|div|sqrt|rsqrt|pow|std|var|mean)(backward\d)?\b"
BACKWARD = r"backward\d?'? returned nan|gradient"
OPTIMIZER = r"optimizer|param(eter)?s?\b.*(updat|chang|optimi)|not updat|stale"

# A code, or a code and a cause where the code alone would be too narrow or too wide.
WORDS: dict[str, str] = {
    "CTC101": HEAD,
    "CTC102": BLANK,
    "CTC103": BLANK,
    "CTC104": rf"vocab_size|config|{HEAD}",
    "CTC105": TOKENIZER,
    "CTC106": rf"{TOKENIZER}|decod|space|delimiter",
    "CTC201": rf"{HEAD}|{LABELS}|index.*(range|bound)|out.of.(range|bounds)",
    "CTC202": rf"negative (label|target|index|integer|value)|-100|ignore_index|{LABELS}|padding",
    "CTC203": rf"{BLANK}|{LABELS}|padding",
    "CTC204": rf"empty|zero.length|{LABELS}",
    "CTC205": rf"{BLANK}|{LABELS}",
    "CTC206": rf"{LABELS}|duplicate|identical|same (text|sentence)|distinct",
    "CTC207": rf"padding|{TARGET_LENGTHS}|{LABELS}",
    "CTC301": rf"{INPUT_LENGTHS}|{TARGET_LENGTHS}|repeat|alignment|infeasible",
    "CTC302": INPUT_LENGTHS,
    "CTC303": TARGET_LENGTHS,
    "CTC303 not-right-padded": rf"padd|{TOKENIZER}|{TARGET_LENGTHS}",
    "CTC304": INPUT_LENGTHS,
    "CTC305": rf"attention_mask|{INPUT_LENGTHS}",
    "CTC402": SOFTMAX,
    "CTC403": FEATURES,
    "CTC403 log-of-softmax": rf"\blog(backward\d)?\b|{SOFTMAX}",
    "CTC403 masking": r"mask|where|fill|-inf",
    "CTC403 overflow": rf"overflow|float16|half|{FEATURES}",
    "CTC404": SOFTMAX,
    "CTC405": r"float16|bfloat16|half|precision",
    "CTC502": rf"padd|{FEATURES}",
    "CTC503": r"hidden|zero_infinity|masked",
    "CTC504": r"int64|int32|dtype|(exactly|is) (0|zero)\b",
    "CTC505": rf"reference|forward algorithm|self.loop|{BLANK}",
    "CTC506": r"accumulat",
    "CTC507": r"loss.*(nan|not finite|inf)|(nan|inf).*loss|mean of (an )?empty|(mean|div)(backward\d)?\b",
    "CTC601": BACKWARD,
    "CTC601 backward": rf"{BACKWARD}|{FEATURES}",
    "CTC601 masking": r"mask|where|fill|-inf",
    "CTC601 padded-frames": rf"padd|mask|attention|{FEATURES}",
    "CTC602": rf"{SOFTMAX}|{BACKWARD}",
    "CTC603": rf"no grad|detach|frozen|requires_grad|zero.?grad|(zero|dead|missing) (unit|grad)|{OPTIMIZER}",
    "CTC604": rf"scal|overflow|sqrt|{BACKWARD}",
    "CTC701": rf"blank|collaps|learning rate|dead|{OPTIMIZER}",
    "CTC702": r"collaps|learning rate|single symbol|delimiter",
    "CTC703": r"progress|plateau|learning rate|\blr\b|scheduler|warm.?up|did not improve",
    "CTC704": r"spike|diverg|learning rate|exploded|explosion",
    "CTC801": r"reshape|view|transpose|permute|mix|leak",
    "CTC802": r"padd|mask|normali[sz]ation",
    "CTC803": r"dropout|\beval|train(ing)? mode|determinis",
}


def words_for(code: str, cause: str) -> str:
    """The regular expression for a cause.

    Raises
    ------
    KeyError
        If the table has none; add it there.
    """
    return WORDS.get(f"{code} {cause}") or WORDS[code]


def names(said: Alarm | Ending, code: str, cause: str, wrong_line: int) -> bool:
    """Whether a message names the cause."""
    return wrong_line in said.lines or re.search(words_for(code, cause), said.message, re.IGNORECASE) is not None
