"""Finds the symbol in the name of a candle file, as exchanges, data vendors and charting sites name them.

Binance Vision `BTCUSDT-1h-2025-01.csv`, TradingView `BINANCE_BTCUSDT, 60.csv`, Kaiko `cbse_btcusd_ohlcv_1h.csv`,
CryptoDataDownload `Binance_BTCUSDT_2023_minute.csv`, freqtrade `BTC_USDT-1h.json`.
"""

import re
from pathlib import Path
from typing import Final

ID: Final = re.compile(r"[A-Za-z0-9._:/-]{1,64}")
QUOTES: Final = (
    "USDT|USDC|FDUSD|BUSD|TUSD|USDD|DAI|USD|EUR|GBP|JPY|KRW|TRY|BRL|AUD|CAD|CHF|UAH|RUB|ZAR|MXN|PLN|BTC|XBT|ETH|BNB"
)
"""Quote currencies."""
VENUES: Final = frozenset(
    [
        "binance",
        "binanceus",
        "bitfinex",
        "bitflyer",
        "bitget",
        "bitmex",
        "bitstamp",
        "btse",
        "bybit",
        "cbse",
        "coinbase",
        "coinbasepro",
        "coinex",
        "cryptocom",
        "deribit",
        "dydx",
        "ftx",
        "gate",
        "gateio",
        "gemini",
        "hitbtc",
        "htx",
        "huobi",
        "kaiko",
        "kraken",
        "krkn",
        "kucoin",
        "mexc",
        "okcoin",
        "okex",
        "okx",
        "poloniex",
        "upbit",
        "whitebit",
        "bfnx",
        "bnce",
        "stmp",
        "btmx",
        "gmni",
        "tradingview",
        "cryptodatadownload",
        "yahoo",
        "index",
        "crypto",
        "spot",
        "futures",
    ]
)
"""Names of exchanges and vendors in file names, including Kaiko's short ones; they are not symbols."""
ENDINGS: Final = re.compile(r"(\.(csv|json|txt|tsv|gz))+$", re.IGNORECASE)
TRADINGVIEW: Final = re.compile(r"[A-Z0-9]+_(?P<symbol>[A-Za-z0-9.!/-]+), ?\w")
WIDTH: Final = re.compile(r"-\d{1,3}(s|m|min|h|d|w|mo|M|H|D|W)(-.*)?$")
"""A candle's width after a hyphen, and what follows it: `-1h`, `-1h-2025-01`, `-1h-futures`."""
PAIR: Final = re.compile(rf"[A-Z0-9]{{2,}}[-/]?({QUOTES})([-.](P|PERP|SWAP|[0-9]{{6}}))?", re.IGNORECASE)
COIN: Final = re.compile(r"[A-Z0-9]{2,12}")
QUOTE: Final = re.compile(QUOTES)
CONTRACT: Final = re.compile(r"PERP|[0-9]{6}")
"""Suffix of a pair outside the spot market: `BTCUSD_PERP`, `BTCUSDT_250328`."""


def symbol_of(path: Path) -> str:
    """Return the symbol in a file name, "" if no part of it can be one.

    >>> symbol_of(Path("BTCUSDT-1h-2025-01.csv")), symbol_of(Path("BINANCE_BTCUSDT, 60.csv"))
    ('BTCUSDT', 'BTCUSDT')
    >>> symbol_of(Path("cbse_btc-usd_ohlcv_1h.csv.gz")), symbol_of(Path("BTC_USDT-1h.json"))
    ('BTC-USD', 'BTC_USDT')
    """
    stem = ENDINGS.sub("", path.name)
    charted = TRADINGVIEW.match(stem)
    if charted:
        return charted["symbol"]
    parts = [WIDTH.sub("", part) for part in re.split(r"[_, ]+", stem)]
    symbol = _pair(parts) or _likely(parts)
    return symbol if ID.fullmatch(symbol) else ""


def is_coin_of(coin: str, symbol: str) -> bool:
    """Return whether `coin` is the base of `symbol`: `ada` of ADAUSDT and ADA/USDT, but `ma` not of MATICUSDT.

    >>> is_coin_of("ada", "ADAUSDT"), is_coin_of("ma", "MATICUSDT"), is_coin_of("usdt", "ADAUSDT")
    (True, False, False)
    """
    rest = symbol.upper().removeprefix(coin.upper())
    return rest == "" or (len(rest) < len(symbol) and re.match(rf"[-_/]?({QUOTES})", rest) is not None)


def _pair(parts: list[str]) -> str:
    """Return the first part that ends in a quote currency, or two parts that are coin and quote; else ""."""
    for index, part in enumerate(parts):
        after = parts[index + 1] if index + 1 < len(parts) else ""
        if part.lower() in VENUES:
            continue
        if PAIR.fullmatch(part):
            pair = part.upper()
            return f"{pair}_{after}" if CONTRACT.fullmatch(after) else pair
        if COIN.fullmatch(part) and QUOTE.fullmatch(after):
            return f"{part}_{after}"
    return ""


def _likely(parts: list[str]) -> str:
    """Return the first part in capitals that is not an exchange, else the first that is not."""
    named = [part for part in parts if part.lower() not in VENUES]
    return next((part for part in named if part.isupper() and len(part) > 3), named[0] if named else "")
