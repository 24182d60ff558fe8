// Signing in by a name and a password, where the server checks these. They are kept in this page's memory alone.

import { $ } from "./elements.js";

export class SignIn {
  constructor(connection) {
    this.connection = connection;
    this.dialog = $("signin");
    $("signin-form").addEventListener("submit", (event) => {
      event.preventDefault();
      connection.login = { user: $("signin-user").value.trim(), password: $("signin-password").value };
      $("signin-password").value = "";
      this.dialog.close();
      connection.reconnect();
      $("text").focus();
    });
  }

  /** The server lets nobody in without credentials, or refused those that the page brought. */
  ask() {
    if (document.body.dataset.login !== "password" || this.dialog.open) return;
    $("signin-error").textContent = this.connection.login ? "The name or the password is wrong." : "";
    this.connection.login = null;
    this.dialog.showModal();
    ($("signin-user").value ? $("signin-password") : $("signin-user")).focus();
  }
}
