"""The machine-independent core of Sparqsim: netlists, two engines, timelines, reports."""
