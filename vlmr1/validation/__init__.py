"""Validation: rows as one flat table a source, Great Expectations' suite over it, and what it refuses or tells.

    pictures    what a picture file is: path, header, pixels, hashes
    table       a chunk of rows as columns, a line a row
    rules       what every column must be, and the suite that looks
    findings    what was found, row by row, bounded in memory
    baselines   how answers are distributed, and what saying the same thing always would score
    gallery     offending pictures with their boxes, a sheet a rule

Sources stream: a chunk of rows is in memory at a time, beside a few numbers a row and a few facts a picture.
Nothing expensive starts before this has looked at every annotation and picture.
Left out on purpose: mending; what is wrong is named, and the owner of the data mends it.
"""
