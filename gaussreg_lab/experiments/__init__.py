"""The named studies, whose results stand in data/results.

    python -m gaussreg_lab.experiments list
    python -m gaussreg_lab.experiments small_data --data FOLDER --workers 2

Each is one function of a `Bench`, in a file of its own; `catalogue` names them all;
`perform` makes the runs of one and writes its record.

Lesson: notebooks/08_explore.ipynb
"""
