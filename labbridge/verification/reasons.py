"""Reasons in words: a code and its parameters rendered in English or Chinese."""

from collections.abc import Iterable
from typing import Literal

from labbridge.model import Reason

Language = Literal["en", "zh"]

TEXTS: dict[str, tuple[str, str]] = {
    "absurd": ("{value} {unit} is not compatible with life", "{value} {unit} 超出生理可能范围"),
    "alarm": ("alarm {alarm} of the analyzer", "仪器报警 {alarm}"),
    "auto-release-off": ("automatic release is switched off", "自动审核未启用"),
    "critical": ("{value} {unit} is critical", "危急值 {value} {unit}"),
    "held-with": ("kept back with {test}", "因 {test} 一同保留"),
    "manual": ("this test is always released by a person", "该项目须人工审核"),
    "no-patient": ("no patient id", "无患者标识"),
    "no-specimen": ("no specimen id", "无样本号"),
    "not-a-patient": ("not a patient's result ({role})", "非患者结果（{role}）"),
    "older-measurement": ("{test} was released from a later measurement", "{test} 已有更新的测定结果"),
    "patient-changed": ("another patient than before for this specimen", "该样本此前属于另一患者"),
    "role-unknown": ("the analyzer does not say that this is a patient's", "仪器未说明是否为患者样本"),
    "repeat": ("{test} was released before as {before}", "{test} 此前已发布为 {before}"),
    "repeat-first": ("{test} was released before as {before}; the first counts", "{test} 以首次结果 {before} 为准"),
    "specimen-counted": ("the specimen id is a counted number, not a barcode", "样本号为流水号，非条码"),
    "specimen-pattern": ("the specimen id does not look like a barcode of this laboratory", "样本号不符合本实验室条码规则"),
    "stale": ("measured long ago ({measured})", "测定时间过久（{measured}）"),
    "status": ("status {status} is not final", "结果状态 {status} 非最终"),
    "twice-in-message": ("{test} comes more than once in the message", "同一消息中 {test} 出现多次"),
    "absent": ("no result", "无结果"),
    "bad-time": ("a time cannot be read", "时间无法识别"),
    "batch-count": ("the batch says another number of messages than it has", "批量消息的计数不符"),
    "held-by-map": ("the code map holds it", "按对照表保留"),
    "no-code": ("a result without a code", "结果没有项目代码"),
    "no-header": ("no header: this is no message", "没有消息头"),
    "no-message-type": ("the message does not say its type (MSH-9)", "消息未说明类型（MSH-9）"),
    "no-result": ("the analyzer gave no result: {word}", "仪器未给出结果：{word}"),
    "no-results": ("no result in the message", "消息中没有结果"),
    "no-version": ("the message does not say its version (MSH-12)", "消息未说明版本（MSH-12）"),
    "not-a-number": ("text where a number belongs", "应为数值处出现文字"),
    "patient-conflict": ("two patients in one report", "同一报告出现两个患者"),
    "specimen-conflict": ("two specimen ids in one report", "同一报告出现两个样本号"),
    "specimen-unknown": ("code {code} has no row for specimen {specimen}", "代码 {code} 没有样本类型 {specimen} 的对照"),
    "undecodable": ("bytes that are not {charset}", "存在非 {charset} 字节"),
    "unit-unknown": ("code {code} has no row for unit {unit}", "代码 {code} 没有单位 {unit} 的对照"),
    "unknown-record": ("a record that is not understood", "存在无法识别的记录"),
    "unknown-word": ("a word that the values file does not have", "结果文字不在取值表中"),
    "unmapped": ("code {code} ({unit}) is not mapped", "代码 {code}（{unit}）未对照"),
    "unsupported-charset": ("character set {charset} is not supported", "不支持字符集 {charset}"),
    "unsupported-type": ("messages of type {type} are not supported", "不支持消息类型 {type}"),
    "unsupported-version": ("version {version} is not supported", "不支持版本 {version}"),
    "unusable-delimiters": ("the delimiters in the header cannot be used", "消息头的分隔符无效"),
    "unwritable-charset": ("cannot be written in {charset}", "无法用 {charset} 书写"),
    "incomplete": ("the transmission broke off: {why}", "传输中断：{why}"),
    "oversize": ("the message is too large ({bytes} bytes)", "消息过大（{bytes} 字节）"),
    "reader-failed": ("the message could not be read (a fault of ours: please report it)", "消息读取失败（程序错误，请上报）"),
    "stray": ("{bytes} bytes came outside any message", "消息之外收到 {bytes} 字节"),
}


def render(reason: Reason, language: Language = "en") -> str:
    """One reason in words; a code without a text is shown as it is."""
    texts = TEXTS.get(reason.code)
    if texts is None:
        return " ".join([reason.code, *(f"{name}={value}" for name, value in reason.params.items())])
    return " ".join(texts[language == "zh"].format_map(_Given(reason.params)).split())  # a unit may be empty


def render_all(reasons: Iterable[Reason], language: Language = "en") -> str:
    """Several reasons in one line."""
    return ("；" if language == "zh" else "; ").join(dict.fromkeys(render(reason, language) for reason in reasons))


class _Given(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"
