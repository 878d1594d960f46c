"""Early-warning scores over one patient's charted parameters: pure, exact, honest about gaps.

=============  ===========================================================================
`parameters`   what a score reads: newest measurements, their age limits, rounding, oxygen
`news2`        National Early Warning Score 2, total or bounds; `news2.hold` for the engine
`qsofa`        quick SOFA
`shock`        shock index
`command`      ``healthsync score``: the same functions over JSON lines
=============  ===========================================================================

A missing parameter gives no total, never 0 points. What is known gives bounds all the same.
"""
