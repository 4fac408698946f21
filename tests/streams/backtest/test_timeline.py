"""Every end and every opening of a candle belongs to one instant, in order of time."""

import pytest
from markets import HOUR_NS, START_NS, of_prices, of_rows, walk

from streams.backtest.timeline import instants, until

HOURLY, DAILY = walk("BTC-USD", 49, 1), walk("ETH-USD", 2, 2, width_s=86_400)


def test_candles_of_two_widths_end_and_open_together():
    found = list(instants([HOURLY, DAILY]))
    assert [each.time_ns for each in found] == [START_NS + hour * HOUR_NS for hour in range(50)]
    for place, each in enumerate(found):
        hourly = [("BTC-USD", HOURLY.rows[place - 1])] if place else []
        daily = [("ETH-USD", DAILY.rows[place // 24 - 1])] if place in {24, 48} else []
        assert each.ended == hourly + daily
        opened = [("BTC-USD", HOURLY.rows[place].open)] if place < 49 else []
        opened += [("ETH-USD", DAILY.rows[place // 24].open)] if place in {0, 24} else []
        assert each.opened == opened


def test_a_candle_after_a_gap_opens_at_an_instant_of_its_own():
    rows = of_prices("BTC-USD", [100.0 + number for number in range(8)]).rows
    found = list(instants([of_rows("BTC-USD", rows[:2] + rows[4:])]))
    assert [(each.time_ns - START_NS) // HOUR_NS for each in found] == [0, 1, 2, 4, 5, 6, 7]
    assert (found[2].opened, found[3].ended) == ([], [])


@pytest.mark.parametrize("hour", [1, 3, 6])
def test_candles_until_a_time_are_counted_anew(hour):
    rows = of_prices("BTC-USD", [100.0 + number for number in range(8)]).rows
    gapped = of_rows("BTC-USD", rows[:2] + rows[4:])
    (found,) = until([gapped, of_rows("LATER", rows[6:])], START_NS + hour * HOUR_NS)
    assert found.rows == [row for row in gapped.rows if gapped.end_ns(row) <= START_NS + hour * HOUR_NS]
    assert (found.found.rows, found.found.gaps) == (len(found.rows), int(hour > 4))
