"""The texts that chat clients read: a catalogue for each language.

The texts for joining, speaking, leaving and renaming are part of the protocol: programs
match on them. All others start with `*` (information) or `!` (an error).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from longconn.core.disconnects import Disconnect
from longconn.core.errors import CommandError


@dataclass(frozen=True, eq=False)
class Texts:
    """One language. `{…}` are filled by `str.format`."""

    said: str  # between the name and the text
    server: str  # the name of a publisher that has none, such as a back end; no client can take it
    joined: str
    left: str
    renamed: str
    counts_joined: str
    counts_left: str
    counts: str
    who: str
    who_more: str
    channels: str
    channel: str
    no_channels: str
    no_history: str
    help: tuple[str, ...]
    unknown_command: str
    not_utf8: str
    usage: str
    goodbye: str
    login_first: str
    password: str
    logged_in: str
    errors: dict[str, str]
    disconnects: dict[str, str]
    #: translations of `{what}` in an error, where the language is not the core's
    words: dict[str, str] = field(default_factory=dict)

    def error(self, error: CommandError) -> str:
        """The text of a refused command, without the `!`."""
        template = self.errors.get(error.reason.key)
        if template is None:
            return str(error)
        return template.format(**{key: self.words.get(str(value), value) for key, value in error.values.items()})

    def disconnect(self, disconnect: Disconnect) -> str:
        """The text of a farewell, without the `!`."""
        return self.goodbye.format(reason=self.disconnects.get(disconnect.key, disconnect.text))


EN = Texts(
    said=": ",
    server="(server)",
    joined="* {name} joined",
    left="* {name} left",
    renamed="* {old} is now {name}",
    counts_joined="{n} joined",
    counts_left="{n} left",
    counts="* {parts}",
    who="* {n} in {channel}: {names}",
    who_more=" and {n} more",
    channels="* channels: {channels}",
    channel="{channel} ({n})",
    no_channels="* no channels",
    no_history="* nothing was said in {channel} lately",
    help=(
        "* a line of text is said to all in your channel; //text says /text",
        "* /nick NAME  /join CHANNEL  /who  /channels  /history [N]  /json VALUE  /login NAME  /help  /quit",
        "* ping is answered by pong; an empty line leaves",
    ),
    unknown_command="unknown command {command}; /help lists them",
    not_utf8="that was not UTF-8",
    usage="usage: {usage}",
    goodbye="disconnected: {reason}",
    login_first="log in first: /login NAME, or /login token TOKEN",
    password="* the next line is the password:",
    logged_in="* logged in as {user}",
    errors={},
    disconnects={
        "shutdown": "the server is shutting down; come back soon",
        "slow": "too slow: too much was waiting for you",
        "write_timeout": "too slow: nothing could be sent",
    },
)

ZH = Texts(
    said="说:",
    server="(服务器)",
    joined="{name}进入房间",
    left="{name}离开了房间",
    renamed="* {old}现在叫{name}",
    counts_joined="{n}人进入",
    counts_left="{n}人离开",
    counts="* {parts}",
    who="* {channel}里有{n}人:{names}",
    who_more="等,还有{n}人",
    channels="* 频道:{channels}",
    channel="{channel}({n}人)",
    no_channels="* 没有频道",
    no_history="* {channel}里最近没有人说话",
    help=(
        "* 输入一行文字,频道里的所有人都会看到;//text 会说出 /text",
        "* /nick 名字  /join 频道  /who  /channels  /history [条数]  /json 值  /login 名字  /help  /quit",
        "* ping 会得到 pong;空行表示离开",
    ),
    unknown_command="未知命令 {command};/help 列出所有命令",
    not_utf8="这不是UTF-8文字",
    usage="用法:{usage}",
    goodbye="连接已断开:{reason}",
    login_first="请先登录:/login 名字,或 /login token 令牌",
    password="* 下一行请输入密码:",
    logged_in="* 已登录为{user}",
    errors={
        "internal": "内部错误,请重试",
        "unauthorized": "未认证",
        "unknown_channel": "未知频道{channel}",
        "permission_denied": "没有权限:{what} {channel}",
        "method_not_found": "没有这个方法",
        "already_subscribed": "已经在{channel}里",
        "limit_exceeded": "超过限制:{what}",
        "bad_request": "请求有误:{what}",
        "not_available": "不可用:{what}",
        "token_expired": "令牌已过期",
        "expired": "已过期",
        "too_many_requests": "请求太频繁",
        "unrecoverable": "无法从该位置恢复",
        "not_subscribed": "不在{channel}里",
        "bad_channel": "频道名为1至255字节,不含空白和控制字符",
        "bad_name": "名字为1至32个字母、数字、_、-或.,且不能像地址",
        "name_taken": "名字{name}已被使用",
        "too_large": "太长:最多{limit}字节",
        "bad_data": "无效:{what}",
        "shutting_down": "服务器正在关闭,请重试",
        "broker_unavailable": "消息服务暂时不可用,请重试",
    },
    disconnects={
        "closed": "连接关闭",
        "shutdown": "服务器正在关闭,请稍后再来",
        "server_error": "服务器内部错误",
        "expired": "连接已过期",
        "subscription_expired": "订阅已过期",
        "slow": "接收太慢,积压太多",
        "write_timeout": "接收太慢,无法发送",
        "insufficient_state": "状态不一致,请重新连接",
        "force_reconnect": "服务器要求重新连接",
        "no_pong": "没有收到pong",
        "invalid_token": "令牌无效",
        "bad_request": "请求有误",
        "idle": "空闲太久",
        "force_disconnect": "被服务器断开",
        "connection_limit": "连接太多",
        "permission_denied": "没有权限",
    },
    words={
        "subscribe to": "进入",
        "publish in": "在此发言",
        "presence of": "查看成员",
        "history of": "查看历史",
        "connections": "连接总数",
        "connections of one address": "同一地址的连接数",
        "channels": "频道总数",
        "channels of one client": "同一客户端的频道数",
        "JSON": "不是JSON",
        "text with a lone surrogate": "含有孤立的代理字符",
    },
)

CATALOGUES = {"en": EN, "zh": ZH}
