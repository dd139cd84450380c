"""Results on pages of HTML that stand alone: a layer, a network, a comparison, a sweep's store.

A page is one file. It loads nothing, is read without a script (with one its tables sort and
filter), is light or dark as its reader likes, prints, and fits a telephone. It says what the report
says: numbers that are derived or assumed are named so beside their source. :mod:`.html` and
:mod:`.charts` are what all pages are made of; nothing here simulates.
"""

from sparqsim.simulator.pages.comparison import comparison_page
from sparqsim.simulator.pages.html import write
from sparqsim.simulator.pages.layer import layer_page
from sparqsim.simulator.pages.network import network_page

__all__ = ["comparison_page", "layer_page", "network_page", "write"]
