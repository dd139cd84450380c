"""Thousands of points, resumable, on one machine or a cluster: grids, samples and searches.

A *point* is work, a recipe, a machine with its parameters, and a seed. What is done with it:

====================  =============================================================================
``file``              the sweep as a strict TOML file or a plain dict; an error for every mistake
``expression``        constraints and derived values, by an evaluator that knows arithmetic alone
``sampling``          grids, lists, ranges, random, Latin hypercube and Sobol samples
``plan``              the points of a file, one at a time, in an order that lets them share work
``points``            a point, its key, and how it is run
``store``, ``index``  one content-addressed JSON file per point; an index that can be rebuilt
``measures``          the numbers of a report by short names
``processes``         points run by processes that may die
``runner``            a sweep carried out: what is stored is not run again
``cluster``           the same over Dask distributed
``search``            the same with points that optuna proposes
``frame``, ``plots``  rows of a store, exports, figures; ``importance``, ``page``
====================  =============================================================================
"""
