"""What numbers of a scale are worth, in words; what they say of data is what the tables' runs are fed."""

from collections.abc import Sequence

from afno_repro.tables.table import Table

INSIDE = {"digits": "digits", "photos": "photographs", "textures": "texture mosaics"}  # of the installed packages
NOT_THE_PAPER_S = (
    "Its qualities are not the paper's and are not comparable with them; what can be compared is which mixer is better"
)
NOTES = {
    "smoke": "Smoke scale: a few steps{on}, to see that everything runs. Its qualities mean nothing.",
    "tiny": f"Tiny scale: small models{{on}}. {NOT_THE_PAPER_S}, and a claim that fails here says nothing about paper "
    "scale.",
    "small": f"Small scale: models for one GPU{{on}}. {NOT_THE_PAPER_S}.",
    "paper": "Paper scale: full models and epochs{on}.",
}


def scale_note(scale: str, tables: Sequence[Table]) -> str:
    """What the numbers of tables of a scale are worth, and what they are made on."""
    names = sorted({name for table in tables for name in table.data})
    if {*names} <= {*INSIDE}:
        said = " and ".join(INSIDE[name] for name in names)
        on = f" on {said} from inside the installed packages" if names else ""
    else:
        on = f" on the data set{'s' * (len(names) > 1)} {', '.join(names)}"
    return NOTES[scale].format(on=on)
